"""What a generator's autoencoder makes of photos: the same pictures with the blur of whatever the generator draws."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.devices import Device, free_memory, out_of_memory
from fashion_pipeline.ml.families import family_of
from fashion_pipeline.ml.files import fingerprint
from fashion_pipeline.ml.sources import find_pipeline
from fashion_pipeline.ml.training.data.shapes import shaped

AT_ONCE = 4
"""Images passed through together: in fp32 each takes 2 GB for a moment at 512 pixels."""


class Autoencoder:
    """The autoencoder of a base, in fp32, at the shapes that a recipe trains at."""

    def __init__(self, source: str | Path, device: Device, recipe: Recipe) -> None:
        folder = find_pipeline(source)
        family = family_of(folder)
        side = recipe.resolution or family.side
        self.fingerprint = f"{fingerprint(folder)}-{side}-{recipe.fit}"
        """Of all that determines what comes out."""
        self._device, self._recipe, self._side, self._unit = device, recipe, side, family.unit
        self._at_once = AT_ONCE
        self._vae = family.load_autoencoder().to(device.name).eval()

    def pass_through(self, images: Iterable[Image.Image]) -> Iterator[Image.Image]:
        """RGB images of any sizes → as many, in order, encoded to the mean of their latents and decoded.

        Neighbours of one shape are passed through together, fewer where memory runs out.
        """
        waiting: list[Image.Image] = []
        for image in images:
            fitted = shaped(image.convert("RGB"), self._recipe, self._side, self._unit)
            if waiting and (waiting[0].size != fitted.size or len(waiting) >= self._at_once):
                yield from self._passed(waiting)
                waiting = []
            waiting.append(fitted)
        if waiting:
            yield from self._passed(waiting)

    def _passed(self, images: list[Image.Image]) -> list[Image.Image]:
        """Images of one shape → as many."""
        while True:
            try:
                starts = range(0, len(images), self._at_once)
                return [each for start in starts for each in self._batch(images[start : start + self._at_once])]
            except RuntimeError as error:
                if not out_of_memory(error) or self._at_once == 1:
                    raise
                self._at_once //= 2
                free_memory(self._device)

    def _batch(self, images: list[Image.Image]) -> list[Image.Image]:
        pixels = torch.from_numpy(np.stack([np.array(image) for image in images])).permute(0, 3, 1, 2)
        with torch.inference_mode():
            latents = self._vae.encode(pixels.to(self._device.name).float() / 127.5 - 1).latent_dist.mean
            decoded = self._vae.decode(latents, return_dict=False)[0]
        values = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(each) for each in values]
