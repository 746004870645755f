"""Stable Diffusion 3 and 3.5 (Esser et al., 2024): a transformer that is taught by flow matching."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from fashion_pipeline.core.training.recipe import Layers, Recipe
from fashion_pipeline.ml.families.base import CLIP_TOKENS, Family, Texts

LAYERS: dict[Layers, tuple[str, ...]] = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    "feed_forward": ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
}
"""The ends of the names of the transformer's layers; it has no convolutions to speak of."""


class StableDiffusion3(Family):
    """A transformer that reads two CLIPs, perhaps a T5, and their pooled texts. Its text encoders are not trained."""

    title = "Stable Diffusion 3 and 3.5"
    pipeline_class = StableDiffusion3Pipeline
    denoiser = "transformer"
    denoiser_class = SD3Transformer2DModel
    text_encoders: ClassVar[Mapping[str, Any]] = {
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel,
    }
    tokenizers = ("tokenizer", "tokenizer_2", "tokenizer_3")
    optional = ("text_encoder_3", "tokenizer_3")
    embeds = ("prompt_embeds", "pooled_prompt_embeds")
    left_out: ClassVar[Mapping[str, Any]] = {"feature_extractor": None, "image_encoder": None}
    other_parts: ClassVar[Mapping[str, str]] = {"transformer": "lora_transformer_"}  # OneTrainer's, read by ComfyUI

    @property
    def unit(self) -> int:
        """A patch of latents."""
        return self.factor * int(self.config["patch_size"])

    @property
    def predicts(self) -> str:
        """The velocity from an image to noise."""
        return "flow"

    def embed(self, pipeline: Any, text: str, device: str) -> Texts:
        """`prompt_embeds` (tokens, d) and `pooled_prompt_embeds` (d,); zeros stand for a T5 that is not there."""
        states, _, pooled, _ = pipeline.encode_prompt(
            text, None, None, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return {"prompt_embeds": states[0], "pooled_prompt_embeds": pooled[0]}

    def probe(self, pipeline: Any, random: torch.Generator) -> Texts:
        """Random embeddings: no training changes the text encoders."""
        width, pooled = self.config["joint_attention_dim"], self.config["pooled_projection_dim"]
        return {
            "prompt_embeds": torch.randn((2, CLIP_TOKENS, width), generator=random),
            "pooled_prompt_embeds": torch.randn((2, pooled), generator=random),
        }

    def predict(self, denoiser: Any, noisy: torch.Tensor, timesteps: torch.Tensor, texts: Texts) -> torch.Tensor:
        """The transformer's answer."""
        answer: torch.Tensor = denoiser(
            hidden_states=noisy,
            timestep=timesteps,
            encoder_hidden_states=texts["prompt_embeds"],
            pooled_projections=texts["pooled_prompt_embeds"],
            return_dict=False,
        )[0]
        return answer

    def layers(self, part: str, recipe: Recipe) -> tuple[str, ...]:
        """Those of the recipe's groups, of image and text alike."""
        return tuple(end for group in dict.fromkeys(recipe.layers) for end in LAYERS.get(group, ()))

    def architecture(self) -> tuple[str, str]:
        """Of all sizes."""
        return "stable-diffusion-3", "sd3"
