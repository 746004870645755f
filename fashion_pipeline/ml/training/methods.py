"""What of a UNet learns by each method of a recipe, and the file of what was learnt: LoRA, in diffusers' format.

The loop trains whatever asks for a gradient after `prepare`, and knows nothing of the method.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save

from fashion_pipeline.core.training.recipe import Recipe

ADAPTER_METADATA = "lora_adapter_metadata"
"""Where diffusers looks for rank, alpha and layers; without it an alpha that differs from the rank is lost."""


def prepare(unet: Any, config: Recipe) -> None:
    """Let of a UNet learn what the recipe's method trains, and freeze the rest.

    lora: additions that change nothing yet (B = 0), their A drawn from the recipe's seed.
    """
    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet.add_adapter(LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(config.target_modules)))


def save_trained(unet: Any, file: Path, metadata: Mapping[str, str]) -> None:
    """Write what a UNet has learnt, a LoRA as `write_lora` does."""
    weights = {f"unet.{name}": tensor for name, tensor in get_peft_model_state_dict(unet).items()}
    adapter = {f"unet.{name}": value for name, value in unet.peft_config["default"].to_dict().items()}
    write_lora(
        file, weights, {**metadata, ADAPTER_METADATA: json.dumps(adapter, indent=2, sort_keys=True, default=sorted)}
    )


def write_lora(file: Path, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a LoRA in diffusers' format under a temporary name, then rename it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.fresh")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    fresh.write_bytes(_with_sorted_header(save(tensors, metadata={**metadata, "format": "pt"})))
    fresh.replace(file)


def _with_sorted_header(content: bytes) -> bytes:
    """A safetensors file with its metadata in order: the library shuffles them, and equal LoRAs would hash unequal."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]
