"""What the autoencoder and the text encoder say of the training data: computed once, kept on disk by content."""

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from fashion_pipeline.core.progress import Meter
from fashion_pipeline.core.prompts.requests import Drawing
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.families import Family, Texts
from fashion_pipeline.ml.training.data.shapes import shaped
from fashion_pipeline.ml.training.objective import random_for
from fashion_pipeline.ml.training.results import TrainingError

CHUNK = 16
"""Items encoded between two writes to disk: what a killed run loses at most."""

LoadImage = Callable[[str], Image.Image]

_CHECKSUM = "sha256"


IN_MEMORY = 512 << 20
"""Bytes of tensors that are kept in memory; the others are read when they are asked for."""


class TensorCache:
    """Tensors by key in a folder of safetensors files that only grows; those asked for last are also in memory.

    Only what is asked for is read. A file whose tensors are not those that were written is removed, and they are
    computed again.
    """

    def __init__(self, folder: Path, in_memory: int = IN_MEMORY) -> None:
        self._folder, self._most = folder, in_memory
        self._files: dict[str, Path] = {}
        self._whole: set[Path] = set()
        """Files whose tensors were found to be those that were written."""
        self._recent: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._bytes = 0
        for file in sorted(folder.glob("*.safetensors")):
            self._files.update(dict.fromkeys(_keys(file), file))

    def __contains__(self, key: str) -> bool:
        file = self._files.get(key)
        if file is None:
            return False
        if file not in self._whole:
            if not _is_whole(file):
                file.unlink(missing_ok=True)
                self._files = {each: place for each, place in self._files.items() if place != file}
                return False
            self._whole.add(file)
        return True

    def __getitem__(self, key: str) -> torch.Tensor:
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        with safe_open(self._files[key], "pt") as tensors:
            tensor: torch.Tensor = tensors.get_tensor(key).clone()  # else the whole file stays mapped
        self._remember(key, tensor)
        return tensor

    def stored(self, key: str) -> "Stored":
        """A tensor that is there, without its content."""
        if key in self._recent:
            return Stored(self, key, self._recent[key].shape)
        with safe_open(self._files[key], "pt") as tensors:
            return Stored(self, key, torch.Size(tensors.get_slice(key).get_shape()))

    def _remember(self, key: str, tensor: torch.Tensor) -> None:
        self._recent[key] = tensor
        self._bytes += tensor.nbytes
        while self._bytes > self._most and len(self._recent) > 1:
            _, oldest = self._recent.popitem(last=False)
            self._bytes -= oldest.nbytes

    def add(self, tensors: dict[str, torch.Tensor]) -> None:
        """Keep the tensors, on disk first, in a file of their own that appears whole."""
        name = _digest(*sorted(tensors))
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh, file = self._folder / f".{name}.{uuid.uuid4().hex[:8]}", self._folder / f"{name}.safetensors"
        save_file(tensors, fresh, metadata={_CHECKSUM: _checksum(tensors)})
        fresh.replace(file)
        self._files.update(dict.fromkeys(tensors, file))
        self._whole.add(file)
        for key, tensor in tensors.items():
            self._remember(key, tensor)


@dataclass(frozen=True)
class Stored:
    """A tensor that lies on disk until it is asked for."""

    cache: TensorCache
    key: str
    shape: torch.Size


Tensor = torch.Tensor | Stored


TextTensors = Mapping[str, Tensor]
"""What stands for a caption, by name, without a dimension for the batch."""


def loaded(tensor: Tensor) -> torch.Tensor:
    """The tensor itself."""
    return tensor.cache[tensor.key] if isinstance(tensor, Stored) else tensor


def stacked(texts: Sequence[TextTensors]) -> Texts:
    """What stands for several captions, a row each."""
    return {name: torch.stack([loaded(text[name]) for text in texts]) for name in texts[0]}


@dataclass
class Encoder:
    """A base's autoencoder and text encoders behind a cache."""

    pipeline: Any
    family: Family
    base: str
    """The base's fingerprint."""
    recipe: Recipe
    device: Device
    load: LoadImage
    cache: TensorCache
    tell: Callable[[str], None]
    """Told how far encoding has come."""
    small: set[str] = field(default_factory=set)
    """Images that had to be enlarged."""

    @property
    def side(self) -> int:
        """Pixels of the side of a square training image. Raises TrainingError for one that cannot be halved."""
        side, unit = self.recipe.resolution or self.family.side, self.family.unit
        if side % unit:
            raise TrainingError(f"resolution is {side}: choose a multiple of {unit}, such as {side // unit * unit}")
        return side

    def images(self, paths: Sequence[str], flip: bool) -> list[list[Stored]]:
        """For each image its views (as it is; mirrored, if `flip`), each (2c, h, w) means and log variances of latents.

        Images get the shape that the recipe says. Each is opened once, however often it is named. Raises TrainingError
        that names the first image which cannot be read.
        """
        keys: dict[str, list[str]] = {}
        different = list(dict.fromkeys(paths))
        meter = Meter(self.tell, "encoding: {} images", len(different))
        missing: dict[str, Image.Image] = {}
        for done, path in enumerate(different, start=1):
            views = {self._image_key(view): view for view in _views(self._read(path), flip)}
            keys[path] = list(views)
            missing.update({key: view for key, view in views.items() if key not in self.cache})
            if len(missing) >= CHUNK:
                self._encode_images(missing)
                meter.reach(done)
                missing = {}
        self._encode_images(missing)
        return [[self.cache.stored(key) for key in keys[path]] for path in paths]

    def captions(self, captions: Sequence[str]) -> dict[str, TextTensors]:
        """Each distinct caption → its fp32 embeddings, or what the text encoders read of it where they learn.

        Raises TrainingError for one that is too long.
        """
        if self.recipe.text_learning_rate:
            return {caption: dict(self._ids(caption)) for caption in captions}
        keys = {caption: self._text_keys(caption) for caption in captions}
        missing = [
            caption for caption, of_text in keys.items() if any(key not in self.cache for key in of_text.values())
        ]
        for start in range(0, len(missing), CHUNK):
            embedded = {caption: self._embedding(caption) for caption in missing[start : start + CHUNK]}
            self.cache.add({keys[text][name]: t for text, named in embedded.items() for name, t in named.items()})
        return {
            caption: {name: self.cache.stored(key) for name, key in of_text.items()}
            for caption, of_text in keys.items()
        }

    def _text_keys(self, caption: str) -> dict[str, str]:
        """Name of each tensor that stands for a caption → its key in the cache."""
        first, *others = self.family.embeds
        return {first: _digest("caption", self.base, caption)} | {
            name: _digest("caption", self.base, caption, name) for name in others
        }

    def prior(self, drawing: Drawing) -> list[torch.Tensor]:
        """(c, h, w) latents that the base draws of the recipe's prior prompt, with a seed each."""
        tensors: list[torch.Tensor] = []
        for number in range(self.recipe.prior_images):
            said = (self.recipe.prior_prompt, number, drawing.steps, drawing.guidance, self.side)
            key = _digest("prior", self.base, *map(str, said))
            if key not in self.cache:
                self.cache.add({key: self._drawn(drawing, number)})
                self.tell(f"prior: {number + 1} of {self.recipe.prior_images} images drawn by the original")
            tensors.append(self.cache[key])
        return tensors

    def _drawn(self, drawing: Drawing, number: int) -> torch.Tensor:
        getattr(self.pipeline, self.family.denoiser).to(self.device.name)
        with torch.inference_mode():
            latents: torch.Tensor = self.pipeline(
                prompt=self.recipe.prior_prompt,
                num_inference_steps=drawing.steps,
                guidance_scale=drawing.guidance,
                width=self.side,
                height=self.side,
                generator=random_for("prior", number),
                output_type="latent",
            ).images
        return self.family.drawn(latents.float())[0].cpu().contiguous()

    def _image_key(self, view: Image.Image) -> str:
        return _digest("latents", self.base, str(view.size), hashlib.sha256(view.tobytes()).hexdigest())

    def _read(self, path: str) -> Image.Image:
        try:
            image = self.load(path).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise TrainingError(
                f"training image {path} cannot be read ({error}): replace it or leave it out"
            ) from error
        if min(image.size) < self.side:
            self.small.add(path)
        return shaped(image, self.recipe, self.side, self.family.unit)

    def _encode_images(self, images: dict[str, Image.Image]) -> None:
        """One image at a time, in fp32: memory stays that of one, and nothing overflows or depends on neighbours."""
        if not images:
            return
        latents = {}
        with torch.no_grad():
            for key, image in images.items():
                pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(self.device.name).float()
                moments = self.pipeline.vae.encode(pixels / 127.5 - 1).latent_dist.parameters[0]
                latents[key] = moments.float().cpu().contiguous()
        self.cache.add(latents)

    def _ids(self, caption: str) -> Texts:
        self._require_fitting(caption)
        return self.family.token_ids(self.pipeline, caption)

    def _embedding(self, caption: str) -> Texts:
        self._require_fitting(caption)
        with torch.no_grad():
            embedded = self.family.embed(self.pipeline, caption, self.device.name)
        return {name: tensor.float().cpu().contiguous() for name, tensor in embedded.items()}

    @cached_property
    def _lengths(self) -> tuple[Callable[[str], int], int]:
        return self.family.text_lengths()

    def _require_fitting(self, caption: str) -> None:
        count, limit = self._lengths
        if count(caption) > limit:
            raise TrainingError(f"caption of {count(caption)} tokens, but the model reads {limit}: shorten {caption!r}")


def _views(image: Image.Image, flip: bool) -> list[Image.Image]:
    return [image, ImageOps.mirror(image)] if flip else [image]


def _keys(file: Path) -> list[str]:
    """The keys in a file; none where its header is damaged, and the file is removed."""
    try:
        with safe_open(file, "pt") as tensors:
            return list(tensors.keys())
    except (SafetensorError, OSError):
        file.unlink(missing_ok=True)
        return []


def _is_whole(file: Path) -> bool:
    """Whether the tensors of a file are those that were written."""
    try:
        tensors = load_file(file)
        with safe_open(file, "pt") as opened:
            written = (opened.metadata() or {}).get(_CHECKSUM)
    except (SafetensorError, OSError):
        return False
    return bool(written == _checksum(tensors))


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(name.encode())
        whole.update(tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
