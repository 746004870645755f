"""Image encoders: a CLIP or SigLIP, by which the pipeline chooses, and a judge of another family, which only evaluates.

Both compute in fp32 on every device: their numbers are compared across machines, and they are a small part of the work.
An image's row depends on its neighbours in a batch by float noise only (1e-6).
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    CLIPModel,
    Siglip2Model,
    SiglipModel,
)

from fashion_pipeline.intake.photos import padded
from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.files import fingerprint, only_errors, quiet, weight_files
from fashion_pipeline.ml.sources import find_model

Rows = NDArray[np.float32]
T = TypeVar("T")

BATCH = 32
TEXT_IMAGE_MODELS = {"clip": CLIPModel, "siglip": SiglipModel, "siglip2": Siglip2Model}
"""`model_type` of a configuration → class."""

_PIXELS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")
_POOLER = ".pooler."


class JudgeEncoder:
    """An image encoder of any family that AutoModel loads and that pools (ResNet, ConvNeXt, DINOv2, ViT).

    One that was trained on labels has no pooler of its own (`ViTForImageClassification`): its class token, which its
    head read, is taken instead (Dosovitskiy et al., 2021). Raises ValueError where other weights are missing.
    """

    def __init__(self, folder: Path, device: Device, *, whole: bool = False) -> None:
        self.fingerprint = encoder_fingerprint(folder, whole=whole)
        self._device, self._whole = device, whole
        self._processor = _processor(folder)
        self._pools = not lacks_pooler(folder)
        self._model = _load(AutoModel, folder, device)
        self.dim = 0
        self.dim = self.embed_images([Image.new("RGB", (32, 32))]).shape[1]

    @property
    def side(self) -> int:
        """Pixels of the longer side of what the model sees; of one that sees any proportions, as a square."""
        size = getattr(self._processor, "size", None)
        if size is None:
            return int(self._processor.patch_size * self._processor.max_num_patches**0.5)
        return int(max(side for side in dict(size).values() if side))

    def embed_images(self, images: Iterable[Image.Image]) -> Rows:
        """n RGB images of any sizes → (n, dim) float32 unit rows."""
        return _embed(images, self._pixels, self._features, self._device, self.dim)

    def _pixels(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        with ThreadPoolExecutor(os.cpu_count() or 1) as workers:  # scaling takes longer than a small model
            seen = list(workers.map(self._pixels_of, images))
        return {name: torch.cat([each[name] for each in seen]) for name in seen[0]}

    def _pixels_of(self, image: Image.Image) -> dict[str, torch.Tensor]:
        """What the model takes of an image; of patches in its own proportions (SigLIP 2) also which there are."""
        rgb = padded(image.convert("RGB")) if self._whole else image.convert("RGB")
        prepared = self._processor(images=rgb, return_tensors="pt")
        return {name: prepared[name] for name in _PIXELS if name in prepared}

    def _features(self, **pixels: torch.Tensor) -> torch.Tensor:
        seen = self._model(**pixels)
        return seen.pooler_output if self._pools else seen.last_hidden_state[:, 0]  # type: ignore[no-any-return]


class ClipEncoder(JudgeEncoder):
    """Images and texts in one space: a CLIPModel, a SiglipModel or a Siglip2Model (Zhai et al., 2023).

    SigLIP was taught by a sigmoid of scaled cosine and bias for each text by itself. Where one of several texts is
    right, as for the values of a facet, that is a softmax of the scaled cosines: the bias is the same for all.
    """

    def __init__(self, folder: Path, device: Device, *, whole: bool = False) -> None:
        kind = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
        if kind not in TEXT_IMAGE_MODELS:
            known = ", ".join(TEXT_IMAGE_MODELS)
            raise ValueError(f"{folder} is a {kind}, which does not read texts, or is not known: name a {known}")
        self.fingerprint = encoder_fingerprint(folder, whole=whole)
        self._device, self._whole = device, whole
        self._processor = _processor(folder)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self._model = _load(TEXT_IMAGE_MODELS[kind], folder, device)
        config = self._model.config
        self.dim = int(config.projection_dim if kind == "clip" else config.vision_config.hidden_size)
        self.logit_scale = float(self._model.logit_scale.exp())
        """What cosines are multiplied by before the softmax of zero-shot classification."""
        self._pads = kind != "clip"
        """Whether the model was taught on texts that are padded to its length, and sees the padding."""
        self.text_limit = int(config.text_config.max_position_embeddings)
        """Tokens of the longest text, the two at its ends included; what is beyond is cut."""

    def embed_texts(self, texts: Sequence[str]) -> Rows:
        """n texts → (n, dim) float32 unit rows. Texts longer than `text_limit` are cut: see `token_count`."""
        return _embed(texts, self._tokens, self._text_features, self._device, self.dim)

    def token_count(self, text: str) -> int:
        """How many tokens a text takes, the two at its ends included."""
        return len(self._tokenizer(text, truncation=False, verbose=False)["input_ids"])

    def _tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        padding = "max_length" if self._pads else True
        tokens = self._tokenizer(
            list(texts), padding=padding, truncation=True, max_length=self.text_limit, return_tensors="pt"
        )
        return {name: tokens[name] for name in ("input_ids", *(() if self._pads else ("attention_mask",)))}

    def _features(self, **pixels: torch.Tensor) -> torch.Tensor:
        return _pooled(self._model.get_image_features(**pixels))

    def _text_features(self, **tokens: torch.Tensor) -> torch.Tensor:
        return _pooled(self._model.get_text_features(**tokens))


def load_clip(source: str | Path, device: Device, *, whole: bool = False) -> ClipEncoder:
    """A CLIP or SigLIP from a local folder or the hub, safetensors only; `whole`: it sees images padded to squares.

    Raises FileNotFoundError or OSError.
    """
    return ClipEncoder(find_model(source), device, whole=whole)


def load_judge(source: str | Path, device: Device, *, whole: bool = False) -> JudgeEncoder:
    """An image encoder of any family, likewise."""
    return JudgeEncoder(find_model(source), device, whole=whole)


def encoder_fingerprint(folder: Path, *, whole: bool) -> str:
    """The fingerprint of an encoder: another one wherever the same files give other embeddings.

    That is where it sees images whole, has no pooler, or scales images by something else than Pillow.
    """
    scales = type(_processor(folder)).__name__
    others = {"whole": whole, "class token": lacks_pooler(folder), scales: not scales.endswith("Pil")}
    of_folder = fingerprint(folder)
    for what, so in others.items():
        of_folder = hashlib.sha256(f"{of_folder} {what}".encode()).hexdigest()[:16] if so else of_folder
    return of_folder


def lacks_pooler(folder: Path) -> bool:
    """Whether a model's own class has a pooler that its files hold no weights of."""
    return _lacks_pooler(folder, fingerprint(folder))


@lru_cache(maxsize=16)
def _lacks_pooler(folder: Path, content: str) -> bool:
    """`content` is part of the cache's key, so that a folder that was replaced is looked at again."""
    there: set[str] = set()
    for file in weight_files(folder):
        with safe_open(file, "pt") as tensors:
            there.update(tensors.keys())
    if any(_POOLER in f".{name}" for name in there):
        return False
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        wanted = AutoModel.from_config(config, trust_remote_code=False).state_dict()
    return any(f".{name}".startswith(_POOLER) for name in wanted)


def _processor(folder: Path) -> Any:
    """What scales images for a model: by Pillow, whatever else is installed, since others give other pixels."""
    with only_errors("transformers"):  # it warns where a model knows none that does
        return AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, backend="pil")


def _load(model_class: Any, folder: Path, device: Device) -> Any:
    quiet()
    with only_errors("transformers"):  # a judge trained on labels has a head that is not wanted here
        model, loading = model_class.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    missing = sorted(name for name in loading["missing_keys"] if not f".{name}".startswith(_POOLER))
    if missing or loading["mismatched_keys"]:
        named = ", ".join([*missing, *(str(each[0]) for each in loading["mismatched_keys"])][:3])
        raise ValueError(f"{folder} has no weights for {named}, which would be left untrained: give a complete model")
    return model.to(device.name).eval().requires_grad_(False)


def _pooled(output: Any) -> torch.Tensor:
    """transformers 5 returns an object where transformers 4 returned the (n, d) tensor."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def _embed(
    items: Iterable[T],
    prepare: Callable[[Sequence[T]], dict[str, torch.Tensor]],
    features: Callable[..., torch.Tensor],
    device: Device,
    dim: int,
) -> Rows:
    rows: list[Rows] = []
    with torch.inference_mode():
        for inputs in _ahead(prepare, _batches(items)):
            placed = {name: tensor.to(device.name) for name, tensor in inputs.items()}
            embedded = features(**placed).flatten(1).float()
            rows.append(torch.nn.functional.normalize(embedded, dim=1).cpu().numpy())
    return np.concatenate(rows) if rows else np.zeros((0, dim), np.float32)


def _ahead(
    prepare: Callable[[Sequence[T]], dict[str, torch.Tensor]], batches: Iterator[Sequence[T]]
) -> Iterator[dict[str, torch.Tensor]]:
    """The inputs of each batch; those of the next one are made while the caller computes."""

    def following() -> dict[str, torch.Tensor] | None:
        batch = next(batches, None)
        return None if batch is None else prepare(batch)

    with ThreadPoolExecutor(1) as worker:
        waiting = worker.submit(following)
        while (inputs := waiting.result()) is not None:
            waiting = worker.submit(following)
            yield inputs


def _batches(items: Iterable[T]) -> Iterator[Sequence[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch
