"""Stable Diffusion XL, the base without its refiner (Podell et al., 2023)."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from fashion_pipeline.ml.families.base import Texts
from fashion_pipeline.ml.families.stable_diffusion import token_ids
from fashion_pipeline.ml.families.unets import UNetFamily

_KEPT = "kept"
"""0 where a text stands for no text, and the base was taught to read zeros there; 1 else."""


class StableDiffusionXL(UNetFamily):
    """A UNet that reads two CLIPs, the pooled text of the second, and the sizes of the image.

    It is told at training what it is told when it draws: an image that was never larger and never cropped. So what is
    learnt does not hang on sizes that nobody asks for later.
    """

    title = "Stable Diffusion XL"
    pipeline_class = StableDiffusionXLPipeline
    text_encoders: ClassVar[Mapping[str, Any]] = {
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
    }
    tokenizers = ("tokenizer", "tokenizer_2")
    learning_encoders = ("text_encoder", "text_encoder_2")
    embeds = ("prompt_embeds", "pooled_prompt_embeds")
    left_out: ClassVar[Mapping[str, Any]] = {"feature_extractor": None, "image_encoder": None, "add_watermarker": False}
    other_parts: ClassVar[Mapping[str, str]] = {
        "unet": "lora_unet_",
        "text_encoder": "lora_te1_text_model_",
        "text_encoder_2": "lora_te2_text_model_",
    }

    @property
    def _no_text_is_zero(self) -> bool:
        return bool(self.index.get("force_zeros_for_empty_prompt", True))

    def _kept(self, text: str) -> float:
        return 0.0 if not text and self._no_text_is_zero else 1.0

    def embed(self, pipeline: Any, text: str, device: str) -> Texts:
        """`prompt_embeds` (tokens, d) and `pooled_prompt_embeds` (d,)."""
        states, _, pooled, _ = pipeline.encode_prompt(
            text, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        kept = self._kept(text)
        return {"prompt_embeds": states[0] * kept, "pooled_prompt_embeds": pooled[0] * kept}

    def token_ids(self, pipeline: Any, text: str) -> Texts:
        """`ids` and `ids_2` (tokens,) for the two text encoders, and whether the text counts."""
        return {
            "ids": token_ids(pipeline.tokenizer, pipeline.text_encoder, text),
            "ids_2": token_ids(pipeline.tokenizer_2, pipeline.text_encoder_2, text),
            _KEPT: torch.tensor(self._kept(text)),
        }

    def embed_ids(self, text_encoders: Mapping[str, Any], ids: Texts) -> Texts:
        """`prompt_embeds` (n, tokens, d) and `pooled_prompt_embeds` (n, d)."""
        first = text_encoders["text_encoder"](ids["ids"], output_hidden_states=True)
        second = text_encoders["text_encoder_2"](ids["ids_2"], output_hidden_states=True)
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        kept = ids.get(_KEPT, torch.ones(len(states)))[:, None].to(states)
        return {"prompt_embeds": states * kept[:, :, None], "pooled_prompt_embeds": second[0] * kept}

    def predict(self, denoiser: Any, noisy: torch.Tensor, timesteps: torch.Tensor, texts: Texts) -> torch.Tensor:
        """The UNet's answer, told that the image has the size of its latents and was not cropped."""
        height, width = noisy.shape[2] * self.factor, noisy.shape[3] * self.factor
        sizes = torch.tensor([[height, width, 0, 0, height, width]] * len(noisy), dtype=torch.float32)
        told = {"text_embeds": texts["pooled_prompt_embeds"], "time_ids": sizes.to(noisy.device)}
        answer: torch.Tensor = denoiser(
            noisy,
            timesteps,
            encoder_hidden_states=texts["prompt_embeds"],
            added_cond_kwargs=told,
            return_dict=False,
        )[0]
        return answer

    def other_layer(self, part: str, layer: str) -> str:
        """Of the UNet by Stability AI's own names (`input_blocks`), of a text encoder as transformers calls it."""
        return original_name(layer, self.config["layers_per_block"]) if part == self.denoiser else layer

    def architecture(self) -> tuple[str, str]:
        """Of the base without its refiner."""
        return "stable-diffusion-xl-v1-base", "sdxl_base_v1-0"


_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def original_name(layer: str, layers_per_block: int = 2) -> str:
    """A layer of diffusers' UNet as Stability AI's code calls it: its blocks are numbered in one row, up and down.

    The upsampler stands behind the attention where its block has any; SDXL's last block with one has.
    """
    if layer in _OUTSIDE:
        return _OUTSIDE[layer]
    if middle := _MIDDLE.fullmatch(layer):
        kind, number, rest = middle.groups()
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{_inside(kind, rest)}"
    found = _BLOCK.fullmatch(layer)
    if found is None:
        return layer
    way, block, kind, number, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    each = layers_per_block + 1
    if way == "down":
        if kind == "downsamplers":
            return f"input_blocks.{each * (block + 1)}.0.op"
        return f"input_blocks.{each * block + number + 1}.{int(kind == 'attentions')}.{_inside(kind, rest)}"
    if kind == "upsamplers":
        return f"output_blocks.{each * block + layers_per_block}.2.{rest}"
    return f"output_blocks.{each * block + number}.{int(kind == 'attentions')}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    return _RESNET.get(rest, rest) if kind == "resnets" else rest
