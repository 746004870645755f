"""Stable Diffusion 1.x and 2.x (Rombach et al., 2022)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel

from fashion_pipeline.ml.families.base import Texts
from fashion_pipeline.ml.families.unets import UNetFamily

_OPENCLIP_WIDTH = 1024
"""Numbers of each token's embedding in 2.x; 768 in 1.x."""


class StableDiffusion(UNetFamily):
    """A UNet that reads the last hidden states of one CLIP.

    The safety checker of v1.5 is left out: it paints a false positive (swimwear, bare shoulders) black, which would be
    scored as if the model had drawn it. Who shows images to the public puts a filter behind it.
    """

    title = "Stable Diffusion 1.x and 2.x"
    pipeline_class = StableDiffusionPipeline
    text_encoders: ClassVar[Mapping[str, Any]] = {"text_encoder": CLIPTextModel}
    tokenizers = ("tokenizer",)
    learning_encoders = ("text_encoder",)
    embeds = ("prompt_embeds",)
    left_out: ClassVar[Mapping[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    other_parts: ClassVar[Mapping[str, str]] = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}

    def embed(self, pipeline: Any, text: str, device: str) -> Texts:
        """`prompt_embeds` (tokens, d)."""
        return {"prompt_embeds": pipeline.encode_prompt(text, device, 1, False)[0][0]}

    def token_ids(self, pipeline: Any, text: str) -> Texts:
        """`ids` (tokens,)."""
        return {"ids": token_ids(pipeline.tokenizer, pipeline.text_encoder, text)}

    def embed_ids(self, text_encoders: Mapping[str, Any], ids: Texts) -> Texts:
        """`prompt_embeds` (n, tokens, d)."""
        return {"prompt_embeds": text_encoders["text_encoder"](ids["ids"])[0]}

    def predict(self, denoiser: Any, noisy: torch.Tensor, timesteps: torch.Tensor, texts: Texts) -> torch.Tensor:
        """The UNet's answer."""
        answer: torch.Tensor = denoiser(
            noisy, timesteps, encoder_hidden_states=texts["prompt_embeds"], return_dict=False
        )[0]
        return answer

    def architecture(self) -> tuple[str, str]:
        """By the width of the texts that the UNet reads, and whether it predicts v."""
        if self.config["cross_attention_dim"] != _OPENCLIP_WIDTH:
            return "stable-diffusion-v1", "sd_v1"
        return f"stable-diffusion-v2-{'768-v' if self.predicts == 'v_prediction' else '512'}", "sd_v2"


def token_ids(tokenizer: Any, text_encoder: Any, text: str) -> torch.Tensor:
    """(tokens,) int64 ids of a text, padded to what a CLIP reads."""
    length = int(text_encoder.config.max_position_embeddings)
    tokens = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids: torch.Tensor = tokens["input_ids"][0]
    return ids
