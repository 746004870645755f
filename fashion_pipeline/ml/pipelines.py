"""Loading a StableDiffusionPipeline: safetensors only, no code from the hub, no safety checker."""

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from fashion_pipeline.ml.devices import Device

CLASSIC_ATTENTION_TOKENS = 1024


def load_pipeline(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The pipeline of a folder on the CPU, without progress bar.

    The safety checker of Stable Diffusion v1.5 is left out: it paints a false positive (swimwear, bare shoulders) black,
    which would be scored as if the model had drawn it. Who shows images to the public puts a filter behind the pipeline.
    """
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder,
        torch_dtype=dtype,
        use_safetensors=True,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def merge_lora(pipeline: Any, lora: Path, scale: float = 1.0) -> None:
    """Add a LoRA file in diffusers' format, times `scale`, to the weights themselves. In fp32, or small changes are lost."""
    pipeline.load_lora_weights(lora.parent, weight_name=lora.name, local_files_only=True)
    pipeline.fuse_lora(lora_scale=scale)
    pipeline.unload_lora_weights()


def image_size(pipeline: Any) -> int:
    """Pixels of the side of the square images that the model was trained on."""
    return int(pipeline.unet.config.sample_size) * int(pipeline.vae_scale_factor)


def choose_attention(unet: Any, device: Device, latent_tokens: int) -> str:
    """Set the attention that is faster for training there, and say which.

    Classic attention (softmax of a full matrix) wins on a CPU while that matrix is small; elsewhere torch's fused one.
    """
    classic = device.type == "cpu" and latent_tokens <= CLASSIC_ATTENTION_TOKENS
    unet.set_attn_processor(AttnProcessor() if classic else AttnProcessor2_0())
    return "classic" if classic else "fused"
