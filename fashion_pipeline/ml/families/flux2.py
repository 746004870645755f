"""FLUX.2 klein (Black Forest Labs, 2026): two kinds of blocks over latents that are packed four to one."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from safetensors import safe_open

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.families.base import Texts
from fashion_pipeline.ml.families.language_models import LanguageModelFamily
from fashion_pipeline.ml.files import weight_files

_ATTENTION = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
)
_FEED_FORWARD = ("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out")
_OTHER = {
    "attn.to_q": "img_attn.qkv",
    "attn.to_k": "img_attn.qkv",
    "attn.to_v": "img_attn.qkv",
    "attn.to_out.0": "img_attn.proj",
    "attn.add_q_proj": "txt_attn.qkv",
    "attn.add_k_proj": "txt_attn.qkv",
    "attn.add_v_proj": "txt_attn.qkv",
    "attn.to_add_out": "txt_attn.proj",
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
    "attn.to_qkv_mlp_proj": "linear1",
    "attn.to_out": "linear2",
}
_BLOCK = re.compile(r"(single_)?transformer_blocks\.(\d+)\.(.+)")


class Flux2Klein(LanguageModelFamily):
    """Its autoencoder keeps mean and deviation of each channel of packed latents.

    A distilled base draws in four steps and knows no guidance; for training the undistilled one is meant.
    """

    title = "FLUX.2 klein"
    pipeline_class = Flux2KleinPipeline
    denoiser_class = Flux2Transformer2DModel
    autoencoder_class = AutoencoderKLFlux2
    embeds = ("prompt_embeds",)
    other_parts: ClassVar[Mapping[str, str]] = {"transformer": "lora_unet_"}
    thinking = False

    @property
    def latent_channels(self) -> int:
        """Four latents in one."""
        return 4 * super().latent_channels

    @property
    def factor(self) -> int:
        """Of packed latents."""
        return 2 * super().factor

    @property
    def unit(self) -> int:
        """A packed latent."""
        return self.factor

    def drawing(self, denoiser: Any, vae: Any, scheduler: Any) -> Any:
        """Without guidance where the base was distilled."""
        pipeline = super().drawing(denoiser, vae, scheduler)
        pipeline.register_to_config(is_distilled=bool(self.index.get("is_distilled", False)))
        return pipeline

    def embed(self, pipeline: Any, text: str, device: str) -> Texts:
        """`prompt_embeds` (512, 3 d): three of the language model's layers side by side."""
        return {"prompt_embeds": pipeline.encode_prompt(text, device=device)[0][0].float()}

    def probe(self, pipeline: Any, random: torch.Generator) -> Texts:
        """Random states: no training changes the text encoder."""
        return {"prompt_embeds": self._random_states(int(self.config["joint_attention_dim"]), random)}

    @cached_property
    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of each channel of packed latents, (1, c, 1, 1) each."""
        with safe_open(weight_files(self.folder / "vae")[0], "pt") as tensors:
            mean, variance = (tensors.get_tensor(f"bn.running_{what}").float() for what in ("mean", "var"))
        deviation = (variance + float(self.autoencoder.get("batch_norm_eps", 1e-4))).sqrt()
        return mean[None, :, None, None], deviation[None, :, None, None]

    def drawn(self, latents: torch.Tensor) -> torch.Tensor:
        """The pipeline gives what the autoencoder decodes."""
        return self.normalised(latents)

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) → (n, 4 c, h / 2, w / 2)."""
        mean, deviation = (each.to(latents) for each in self._statistics)
        packed: torch.Tensor = self.pipeline_class._patchify_latents(latents)
        return (packed - mean) / deviation

    def denormalised(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, 4 c, h, w) → (n, c, 2 h, 2 w)."""
        mean, deviation = (each.to(latents) for each in self._statistics)
        unpacked: torch.Tensor = self.pipeline_class._unpatchify_latents(latents * deviation + mean)
        return unpacked

    def predict(self, denoiser: Any, noisy: torch.Tensor, timesteps: torch.Tensor, texts: Texts) -> torch.Tensor:
        """The transformer's answer for a row of latents, each told its place."""
        pipeline, states = self.pipeline_class, texts["prompt_embeds"]
        answer: torch.Tensor = denoiser(
            hidden_states=pipeline._pack_latents(noisy),
            timestep=timesteps / 1000,
            guidance=None,
            encoder_hidden_states=states,
            txt_ids=pipeline._prepare_text_ids(states).to(noisy.device),
            img_ids=pipeline._prepare_latent_ids(noisy).to(noisy.device),
            return_dict=False,
        )[0]
        return answer.transpose(1, 2).reshape(noisy.shape)

    def layers(self, part: str, recipe: Recipe) -> tuple[str, ...]:
        """Those of the recipe's groups; the layers that are both in single blocks go with attention."""
        single = [f"single_transformer_blocks.{n}.attn" for n in range(self.config["num_single_layers"])]
        groups = {
            "attention": (*_ATTENTION, *(f"{at}.{end}" for at in single for end in ("to_qkv_mlp_proj", "to_out"))),
            "feed_forward": _FEED_FORWARD,
        }
        return tuple(end for group in dict.fromkeys(recipe.layers) for end in groups.get(group, ()))

    def other_layer(self, part: str, layer: str) -> str:
        """As Black Forest Labs' own code has it, where the three of attention are one."""
        found = _BLOCK.fullmatch(layer)
        if found is None or found[3] not in _OTHER:
            return layer
        return f"{'single' if found[1] else 'double'}_blocks.{found[2]}.{_OTHER[found[3]]}"

    def architecture(self) -> tuple[str, str]:
        """Of all sizes."""
        return "flux-2-klein", "flux2"
