"""Compute, without a graphics card, how much memory a training on the shapes of Stable Diffusion v1.5 needs on one.

    python -m tools.sd15.memory [--resolution 512]

A forward pass on torch's meta device tells which tensors autograd keeps for the backward pass; to them come weights,
gradients and what the optimizer keeps. Attention counts as fused (queries, keys, values and result are kept, no matrix
of all pairs). Not counted: what a single layer needs for a moment, cuDNN's workspaces, the CUDA context; `RESERVE`
stands for them. So the figures are computed, not measured.
"""

import argparse
from itertools import product
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.training.costs import optimizer_numbers
from fashion_pipeline.ml.training.methods import Parts, prepare

UNET = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
RESERVE = 1.2e9
CARDS = (8, 12, 24)


class _Fused(torch.autograd.Function):
    """Attention that keeps what a fused kernel keeps."""

    @staticmethod
    def forward(context: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        found = torch.empty_like(query)
        context.save_for_backward(query, key, value, found)
        return found

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        _query, key, value, _ = context.saved_tensors
        return gradient, torch.empty_like(key), torch.empty_like(value)


def needed(recipe: Recipe, resolution: int, half: bool) -> float:
    """Bytes of a training step; `half`: what is computed is in bf16 or fp16, what learns in fp32 all the same."""
    dtype = torch.bfloat16 if half else torch.float32
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNET)
        prepare(Parts(unet), recipe)
        learns = [weight for weight in unet.parameters() if weight.requires_grad]
        learning, moments = sum(weight.numel() for weight in learns), optimizer_numbers(recipe.optimizer, learns)
        frozen = sum(weight.numel() for weight in unet.parameters() if not weight.requires_grad)
        torch.nn.Module.to(unet, dtype=dtype)  # ModelMixin.to warns on every call
        unet.set_attn_processor(AttnProcessor2_0())
        if recipe.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        kept = _kept(unet, recipe.batch_size, resolution // 8, dtype)
    copies = 2 * learning if half and recipe.method == "full" else 0  # autocast's casts of fp32 weights
    weights = frozen * (2 if half else 4) + 4 * (2 * learning + moments)
    return weights + copies + kept + RESERVE


def _kept(unet: Any, batch: int, side: int, dtype: torch.dtype) -> int:
    """Bytes that autograd keeps between the forward and the backward pass, weights left out."""
    own = {weight.untyped_storage()._cdata for weight in unet.parameters()}
    found: dict[int, int] = {}
    held = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage.nbytes()
            held.append(tensor)  # or its address would be given to another one
        return tensor

    fused = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = lambda q, k, v, **more: _Fused.apply(q, k, v)
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            latents = torch.empty(batch, 4, side, side, dtype=dtype)
            text = torch.empty(batch, 77, 768, dtype=dtype)
            unet(latents, torch.empty(batch, dtype=torch.int64), encoder_hidden_states=text)
    finally:
        torch.nn.functional.scaled_dot_product_attention = fused
    return sum(found.values())


def main(resolution: int) -> None:
    """Print a table: a row a way to train, a column a batch size."""
    print(f"{resolution} pixels, GB, computed; in brackets the smallest of {CARDS} GB that holds it\n")
    batches = (1, 2, 4, 8)
    print("| training | " + " | ".join(f"batch {batch}" for batch in batches) + " |\n" + "| --- " * 5 + "|")
    ways: dict[str, dict[str, Any]] = {
        "LoRA": {"rank": 16},
        "LoRA on all layers": {"rank": 16, "layers": ["attention", "feed_forward", "convolution"]},
        "whole UNet, AdamW": {"method": "full"},
        "whole UNet, 8-bit AdamW": {"method": "full", "optimizer": "adamw8bit"},
        "whole UNet, Adafactor": {"method": "full", "optimizer": "adafactor"},
    }
    for (name, knobs), half, checkpointed in product(ways.items(), (True, False), (False, True)):
        told = f"{name}, {'bf16 or fp16' if half else 'fp32'}{', checkpointing' if checkpointed else ''}"
        recipes = [Recipe.of(knobs | {"batch_size": b, "gradient_checkpointing": checkpointed}) for b in batches]
        print(f"| {told} | {' | '.join(_cell(needed(recipe, resolution, half)) for recipe in recipes)} |", flush=True)


def _cell(size: float) -> str:
    fits = next((f"{card}" for card in CARDS if size < card * 1e9), "none")
    return f"{size / 1e9:.1f} ({fits})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=512)
    main(parser.parse_args().resolution)
