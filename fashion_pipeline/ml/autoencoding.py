"""What a generator's autoencoder makes of photos: the same pictures with the blur of whatever the generator draws."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.pipelines import load_autoencoder, smallest_side, trained_as
from fashion_pipeline.ml.sources import find_pipeline, fingerprint
from fashion_pipeline.ml.training.shapes import shaped


class Autoencoder:
    """The autoencoder of a StableDiffusionPipeline, in fp32, at the shapes that a recipe trains at."""

    def __init__(self, source: str | Path, device: Device, recipe: Recipe) -> None:
        folder = find_pipeline(source)
        side = recipe.resolution or trained_as(folder)[0]
        self.fingerprint = f"{fingerprint(folder)}-{side}-{recipe.fit}"
        """Of all that determines what comes out."""
        self._device, self._recipe, self._side, self._unit = device, recipe, side, smallest_side(folder)
        self._vae = load_autoencoder(folder).to(device.name).eval()

    def pass_through(self, images: Iterable[Image.Image]) -> Iterator[Image.Image]:
        """RGB images of any sizes → as many, encoded to the mean of their latents and decoded, one at a time."""
        for image in images:
            fitted = shaped(image.convert("RGB"), self._recipe, self._side, self._unit)
            pixels = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None].to(self._device.name).float()
            with torch.inference_mode():
                latents = self._vae.encode(pixels / 127.5 - 1).latent_dist.mean
                decoded = self._vae.decode(latents, return_dict=False)[0][0]
            values = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte()
            yield Image.fromarray(values.permute(1, 2, 0).cpu().numpy())
