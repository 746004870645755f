"""A look at a training while it runs: images from fixed seeds, and how close they come to validation photos."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fashion_pipeline.core.reports.pictures import contact_sheet
from fashion_pipeline.ml.devices import Device, free_memory
from fashion_pipeline.ml.encoders import load_clip
from fashion_pipeline.ml.families import Family, Texts
from fashion_pipeline.ml.training.data.caching import LoadImage, TextTensors, stacked
from fashion_pipeline.ml.training.methods import Parts
from fashion_pipeline.ml.training.results import Validation

FLAT = 1.0
"""Standard deviation of an image's pixels, of 255, below which it shows nothing."""


@dataclass(frozen=True)
class Look:
    """What was seen at a step."""

    similarities: tuple[float, ...]
    """The cosine of each image to its photo, in [-1, 1]."""
    flat: bool
    """Whether no image shows anything."""
    sheet: Path
    """The images, side by side."""


def is_as_close(look: Sequence[float], closest: Sequence[float]) -> bool:
    """Whether a look is not worse than the closest one by more than one standard error of their paired difference.

    This is the one-standard-error rule of Breiman et al. (1984): among models that noise cannot tell apart, keep the
    preferred one. Here that is the one trained for longer.
    """
    behind = np.subtract(closest, look)
    return bool(behind.mean() <= behind.std(ddof=1) / len(behind) ** 0.5)


class Watcher:
    """Draws the validation images with the weights as they are, and compares them with the photos.

    The encoder stays on the CPU, and the autoencoder is on the device only while it draws: both cost no memory that
    training needs.
    """

    def __init__(
        self,
        validation: Validation,
        family: Family,
        pipeline: Any,
        texts: Mapping[str, TextTensors],
        device: Device,
        load_image: LoadImage,
        folder: Path,
    ) -> None:
        self._requests, self._texts, self._device, self._folder = validation.requests, texts, device, folder
        self._family = family
        self._vae, self._scheduler = pipeline.vae.to("cpu"), pipeline.scheduler
        self._encoder = load_clip(validation.encoder, Device("cpu", "fp32"), whole=validation.whole)
        self._photos = self._encoder.embed_images(load_image(photo.path) for photo in validation.photos)

    def look(self, parts: Parts, step: int, at_once: int, also: str = "") -> Look:
        """Draw all requests, `at_once` at a time, and keep the sheet as `step-00000000<also>.png`."""
        images: list[Image.Image] = []
        with self._drawing(parts) as pipeline:
            for start in range(0, len(self._requests), at_once):
                images += self._draw(pipeline, parts, self._requests[start : start + at_once])
        drawn = self._encoder.embed_images(images)
        sheet = self._folder / f"step-{step:08d}{also}.png"
        _write(contact_sheet(images), sheet)
        flat = all(float(np.asarray(image, np.float32).std()) < FLAT for image in images)
        return Look(tuple(map(float, (drawn * self._photos).sum(axis=1))), flat, sheet)

    @contextmanager
    def _drawing(self, parts: Parts) -> Iterator[Any]:
        """A pipeline of the learning denoiser."""
        self._vae.to(self._device.name)
        pipeline = self._family.drawing(parts.denoiser, self._vae, self._scheduler)
        enabled = self._device.dtype != torch.float32
        try:
            with torch.inference_mode(), torch.autocast(self._device.type, self._device.dtype, enabled=enabled):
                yield pipeline
        finally:
            self._vae.to("cpu")
            free_memory(self._device)

    def _draw(self, pipeline: Any, parts: Parts, requests: Sequence[Any]) -> list[Image.Image]:
        first = requests[0]
        latents = pipeline(
            **self._family.arguments(
                self._embed(parts, [request.prompt for request in requests]),
                self._embed(parts, [request.negative_prompt for request in requests]),
            ),
            num_inference_steps=first.steps,
            guidance_scale=first.guidance,
            width=first.width,
            height=first.height,
            generator=[torch.Generator("cpu").manual_seed(request.seed) for request in requests],
            output_type="latent",
        ).images
        with torch.autocast(self._device.type, enabled=False):
            latents = self._family.denormalised(self._family.drawn(latents.float()))
            decoded = [self._vae.decode(each[None])[0] for each in latents]
        images: list[Image.Image] = pipeline.image_processor.postprocess(torch.cat(decoded), output_type="pil")
        return images

    def _embed(self, parts: Parts, prompts: Sequence[str]) -> list[Texts]:
        batch = stacked([self._texts[prompt] for prompt in prompts])
        texts = {name: tensor.to(self._device.name) for name, tensor in batch.items()}
        if parts.text_encoders:
            texts = self._family.embed_ids(parts.text_encoders, texts)
        return [{name: tensor[row] for name, tensor in texts.items()} for row in range(len(prompts))]


def _write(image: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.fresh")
    image.save(fresh, format="PNG")
    fresh.replace(file)
