"""Compute, without a graphics card, how much memory a training on the shapes of a public base needs on one.

    python -m tools.real_models.memory [--base NAME] [--resolution 512]

A forward pass on torch's meta device tells which tensors autograd keeps for the backward pass; to them come weights,
gradients and what the optimizer keeps. Attention counts as fused (queries, keys, values and result are kept, no matrix
of all pairs). Not counted: what a single layer needs for a moment, cuDNN's workspaces, the CUDA context; `RESERVE`
stands for them. So the figures are computed, not measured.
"""

import argparse
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.families import Family, family_of
from fashion_pipeline.ml.training.costs import optimizer_numbers
from fashion_pipeline.ml.training.methods import Parts, prepare
from fashion_pipeline.ml.tuning import ComputeConfig
from tools.real_models.configurations import BASES, TEXTS, write

Shapes = Mapping[str, tuple[int, ...]]

RESERVE = 1.2e9
CARDS = (8, 12, 16, 24)


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


def needed(family: Family, texts: Shapes, recipe: Recipe, resolution: int, half: bool) -> float:
    """Bytes of a training step; `half`: what is computed is in bf16 or fp16, what learns in fp32 all the same."""
    dtype = torch.bfloat16 if half else torch.float32
    with torch.device("meta"):
        denoiser = family.skeleton(family.denoiser)
        prepare(Parts(family, denoiser), recipe)
        learns = [weight for weight in denoiser.parameters() if weight.requires_grad]
        learning, moments = sum(weight.numel() for weight in learns), optimizer_numbers(recipe.optimizer, learns)
        frozen = sum(weight.numel() for weight in denoiser.parameters() if not weight.requires_grad)
        torch.nn.Module.to(denoiser, dtype=dtype)  # ModelMixin.to warns on every call
        family.tune(denoiser, ComputeConfig())
        if recipe.gradient_checkpointing:
            denoiser.enable_gradient_checkpointing()
        kept = _kept(family, denoiser, texts, recipe.batch_size, resolution // family.factor, dtype)
    copies = 2 * learning if half and recipe.method == "full" else 0  # autocast's casts of fp32 weights
    weights = frozen * (2 if half else 4) + 4 * (2 * learning + moments)
    return weights + copies + kept + RESERVE


def _kept(family: Family, denoiser: Any, texts: Shapes, batch: int, side: int, dtype: torch.dtype) -> int:
    """Bytes that autograd keeps between the forward and the backward pass, weights left out."""
    own = {weight.untyped_storage()._cdata for weight in denoiser.parameters()}
    found: dict[int, int] = {}
    held = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage.nbytes()
            held.append(tensor)  # or its address would be given to another one
        return tensor

    fused = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = lambda query, key, value, **more: _Fused.apply(query, key, value)
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            latents = torch.empty(batch, family.config["in_channels"], side, side, dtype=dtype)
            told = {name: torch.empty(batch, *shape, dtype=dtype) for name, shape in texts.items()}
            family.predict(denoiser, latents, torch.empty(batch, dtype=torch.int64), told)
    finally:
        torch.nn.functional.scaled_dot_product_attention = fused
    return sum(found.values())


def main(base: str, resolution: int) -> None:
    """Print a table: a row a way to train, a column a batch size."""
    with tempfile.TemporaryDirectory() as folder:
        family = family_of(write(base, Path(folder)))
    texts = TEXTS[base]
    print(f"{resolution} pixels, GB, computed; in brackets the smallest of {CARDS} GB that holds it\n")
    batches = (1, 2, 4, 8)
    print("| training | " + " | ".join(f"batch {batch}" for batch in batches) + " |\n" + "| --- " * 5 + "|")
    ways: dict[str, dict[str, Any]] = {
        "LoRA": {"rank": 16},
        "LoRA, feed-forward too": {"rank": 16, "layers": ["attention", "feed_forward"]},
        "all weights, AdamW": {"method": "full"},
        "all weights, 8-bit AdamW": {"method": "full", "optimizer": "adamw8bit"},
        "all weights, Adafactor": {"method": "full", "optimizer": "adafactor"},
    }
    for (name, knobs), half, checkpointed in product(ways.items(), (True, False), (False, True)):
        told = f"{name}, {'bf16 or fp16' if half else 'fp32'}{', checkpointing' if checkpointed else ''}"
        recipes = [Recipe.of(knobs | {"batch_size": b, "gradient_checkpointing": checkpointed}) for b in batches]
        print(
            f"| {told} | {' | '.join(_cell(needed(family, texts, recipe, resolution, half)) for recipe in recipes)} |",
            flush=True,
        )


def _cell(size: float) -> str:
    fits = next((f"{card}" for card in CARDS if size < card * 1e9), "none")
    return f"{size / 1e9:.1f} ({fits})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=BASES, default="sd15")
    parser.add_argument("--resolution", type=int, default=512)
    given = parser.parse_args()
    main(given.base, given.resolution)
