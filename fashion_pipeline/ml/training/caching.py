"""What the autoencoder and the text encoder say of the training data: computed once, kept on disk by content."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.training.results import TrainingError

CHUNK = 16
"""Items encoded between two writes to disk: what a killed run loses at most."""

LoadImage = Callable[[str], Image.Image]

_CHECKSUM = "sha256"


class TensorCache:
    """Tensors by key, in memory and in a folder of safetensors files that only grows.

    A file whose tensors are not those that were written is removed, and they are computed again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            if (tensors := _read_checked(file)) is None:
                file.unlink(missing_ok=True)
            else:
                self._known.update(tensors)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> torch.Tensor:
        return self._known[key]

    def add(self, tensors: dict[str, torch.Tensor]) -> None:
        """Keep the tensors, on disk first, in a file of their own that appears whole."""
        name = _digest(*sorted(tensors))
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / f".{name}.fresh"
        save_file(tensors, fresh, metadata={_CHECKSUM: _checksum(tensors)})
        fresh.replace(self._folder / f"{name}.safetensors")
        self._known.update(tensors)


@dataclass(frozen=True)
class Encoder:
    """A base's autoencoder and text encoder behind a cache."""

    pipeline: Any
    base: str
    """The base's fingerprint."""
    side: int
    """Pixels of the square images."""
    device: Device
    load: LoadImage
    cache: TensorCache

    def images(self, paths: Sequence[str], flip: bool) -> list[list[torch.Tensor]]:
        """For each image its views (as it is; mirrored, if `flip`), each (2c, h, w) means and log variances of latents.

        Images are scaled to cover the square and cut at its edges. Raises TrainingError that names the first image
        which cannot be read.
        """
        keys: list[list[str]] = []
        missing: dict[str, Image.Image] = {}
        for path in paths:
            views = {self._image_key(view): view for view in _views(self._read(path), flip)}
            keys.append(list(views))
            missing.update({key: view for key, view in views.items() if key not in self.cache})
            if len(missing) >= CHUNK:
                self._encode_images(missing)
                missing = {}
        self._encode_images(missing)
        return [[self.cache[key] for key in view_keys] for view_keys in keys]

    def captions(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Each distinct caption → its (tokens, d) fp32 embedding. Raises TrainingError for one that is too long."""
        keys = {caption: _digest("caption", self.base, caption) for caption in captions}
        missing = [caption for caption, key in keys.items() if key not in self.cache]
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            self.cache.add({keys[caption]: self._embedding(caption) for caption in chunk})
        return {caption: self.cache[key] for caption, key in keys.items()}

    def _image_key(self, view: Image.Image) -> str:
        return _digest("latents", self.base, str(self.side), hashlib.sha256(view.tobytes()).hexdigest())

    def _read(self, path: str) -> Image.Image:
        try:
            return ImageOps.fit(self.load(path).convert("RGB"), (self.side, self.side), Image.Resampling.LANCZOS)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise TrainingError(
                f"training image {path} cannot be read ({error}): replace it or leave it out"
            ) from error

    def _encode_images(self, images: dict[str, Image.Image]) -> None:
        """One image at a time, so that memory stays that of one and no image depends on others."""
        if not images:
            return
        found = {}
        with torch.no_grad():
            for key, image in images.items():
                pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(self.device.name).float()
                moments = self.pipeline.vae.encode(pixels / 127.5 - 1).latent_dist.parameters[0]
                found[key] = moments.float().cpu().contiguous()
        self.cache.add(found)

    def _embedding(self, caption: str) -> torch.Tensor:
        limit = self.pipeline.text_encoder.config.max_position_embeddings
        count = len(self.pipeline.tokenizer(caption, truncation=False, verbose=False)["input_ids"])
        if count > limit:
            raise TrainingError(f"caption of {count} tokens, but the model reads {limit}: shorten {caption!r}")
        with torch.no_grad():
            embedded: torch.Tensor = self.pipeline.encode_prompt(caption, self.device.name, 1, False)[0]
        return embedded[0].float().cpu().contiguous()


def _views(image: Image.Image, flip: bool) -> list[Image.Image]:
    return [image, ImageOps.mirror(image)] if flip else [image]


def _read_checked(file: Path) -> dict[str, torch.Tensor] | None:
    """The tensors of a file, or None if it is damaged."""
    try:
        tensors = load_file(file)
        with safe_open(file, "pt") as opened:
            written = (opened.metadata() or {}).get(_CHECKSUM)
    except (SafetensorError, OSError):
        return None
    return tensors if written == _checksum(tensors) else None


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(name.encode())
        whole.update(tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
