"""What the families have in common whose denoiser is diffusers' UNet2DConditionModel."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel

from fashion_pipeline.core.training.recipe import Layers, Recipe
from fashion_pipeline.ml.families.base import Family, Texts
from fashion_pipeline.ml.tuning import ComputeConfig, apply

LAYERS: dict[Layers, tuple[str, ...]] = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "feed_forward": ("ff.net.0.proj", "ff.net.2"),
    "convolution": (
        "conv1",
        "conv2",
        "conv_shortcut",
        "time_emb_proj",
        "proj_in",
        "proj_out",
        "downsamplers.0.conv",
        "upsamplers.0.conv",
    ),
}
"""The ends of the names of a UNet's layers."""

TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""The ends of the names of a CLIP text encoder's layers."""


TOKEN_IDS = ("ids", "ids_2")
"""Names of what each text encoder reads."""


class UNetFamily(Family):
    """A pipeline of a UNet, an autoencoder and CLIP text encoders."""

    denoiser = "unet"
    denoiser_class = UNet2DConditionModel

    def probe(self, pipeline: Any, random: torch.Generator) -> Texts:
        """The text encoders' answer to random tokens."""
        encoders = {part: getattr(pipeline, part).eval() for part in self.text_encoders}
        ids = {
            name: torch.randint(
                0, encoder.config.vocab_size, (2, encoder.config.max_position_embeddings), generator=random
            )
            for name, encoder in zip(TOKEN_IDS, encoders.values(), strict=False)
        }
        return self.embed_ids(encoders, ids)

    @property
    def unit(self) -> int:
        """What autoencoder and UNet halve, they must double."""
        return self.factor * int(2 ** (len(self.config["block_out_channels"]) - 1))

    def tune(self, denoiser: Any, config: ComputeConfig) -> None:
        """Attention and memory format."""
        apply(denoiser, config)

    def layers(self, part: str, recipe: Recipe) -> tuple[str, ...]:
        """Of the UNet those of the recipe's groups, of a text encoder its attention."""
        if part != self.denoiser:
            return TEXT_LAYERS
        return tuple(end for group in dict.fromkeys(recipe.layers) for end in LAYERS[group])
