"""Z-Image (Tongyi-MAI, 2025): one row of text and image through a single kind of block."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import ZImagePipeline, ZImageTransformer2DModel

from fashion_pipeline.core.training.recipe import Layers, Recipe
from fashion_pipeline.ml.families.base import Texts
from fashion_pipeline.ml.families.language_models import LanguageModelFamily

LAYERS: dict[Layers, tuple[str, ...]] = {
    "attention": ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"),
    "feed_forward": ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
}
"""The ends of the names of the transformer's layers."""


class ZImage(LanguageModelFamily):
    """It takes lists: of images, and of texts as long as they are.

    Its time runs from noise to image, and it predicts the way there; both are turned round here.
    """

    title = "Z-Image"
    pipeline_class = ZImagePipeline
    denoiser_class = ZImageTransformer2DModel
    embeds = ("prompt_embeds", "mask")
    other_parts: ClassVar[Mapping[str, str]] = {"transformer": "diffusion_model."}  # ai-toolkit's, read by ComfyUI
    thinking = True

    @property
    def unit(self) -> int:
        """A patch of latents."""
        return self.factor * int(self.config.get("all_patch_size", [2])[0])

    def embed(self, pipeline: Any, text: str, device: str) -> Texts:
        """`prompt_embeds` (512, d) with zeros behind the text, and `mask` (512,), ones where it is."""
        states = pipeline.encode_prompt([text], device=device, do_classifier_free_guidance=False)[0][0].float()
        padding = self.tokens - len(states)
        mask = torch.ones(len(states), device=states.device)
        return {
            "prompt_embeds": torch.nn.functional.pad(states, (0, 0, 0, padding)),
            "mask": torch.nn.functional.pad(mask, (0, padding)),
        }

    def probe(self, pipeline: Any, random: torch.Generator) -> Texts:
        """Random states: no training changes the text encoder."""
        return {"prompt_embeds": self._random_states(int(self.config.get("cap_feat_dim", 2560)), random)}

    def arguments(self, texts: Sequence[Texts], negative: Sequence[Texts]) -> dict[str, Any]:
        """Lists."""
        return {
            name: [text["prompt_embeds"][text["mask"] > 0] for text in each]
            for name, each in (("prompt_embeds", texts), ("negative_prompt_embeds", negative))
        }

    def predict(self, denoiser: Any, noisy: torch.Tensor, timesteps: torch.Tensor, texts: Texts) -> torch.Tensor:
        """The transformer's answer with its sign changed. Without a mask all is text."""
        states = list(texts["prompt_embeds"])
        if "mask" in texts:
            states = [each[mask > 0] for each, mask in zip(states, texts["mask"], strict=True)]
        answers = denoiser(list(noisy.unsqueeze(2)), (1000 - timesteps) / 1000, states, return_dict=False)[0]
        return -torch.stack(list(answers)).squeeze(2)

    def layers(self, part: str, recipe: Recipe) -> tuple[str, ...]:
        """Those of the recipe's groups."""
        return tuple(end for group in dict.fromkeys(recipe.layers) for end in LAYERS.get(group, ()))

    def architecture(self) -> tuple[str, str]:
        """Of all versions."""
        return "z-image", "zimage"
