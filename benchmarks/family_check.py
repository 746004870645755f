"""A LoRA of a few steps on the shapes of a public base with random weights: speed, memory, and whether it is finite.

    python -m benchmarks.family_check BASE [--quantize int8] [--precision bf16] [--resolution 1024] [--steps 50]

BASE is one of tools.real_models.configurations. Only the denoiser is made, straight on the device, and what stands for
images and texts is random: time and memory of a step are those of the real base. Wants a graphics card: the smallest
base takes minutes a step on a CPU.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.devices import Device, peak_memory, pick_device
from fashion_pipeline.ml.families import Family, family_of
from fashion_pipeline.ml.training.methods import Parts, prepare
from fashion_pipeline.ml.training.objective import Batch, objective_of, squared_errors
from fashion_pipeline.ml.training.optimizers import optimizer_of
from fashion_pipeline.ml.training.quantising import quantise
from tools.real_models.configurations import BASES, TEXTS, write

Shapes = Mapping[str, tuple[int, ...]]


def measure(family: Family, texts: Shapes, recipe: Recipe, device: Device) -> str:
    """Cells of a table: images a second, peak GB, and whether all losses were numbers."""
    parts = Parts(family, _random_denoiser(family, device))
    prepare(parts, recipe)
    quantise(parts.denoiser, recipe.quantize, device)
    parts.denoiser.to(device.name)
    family.tune(parts.denoiser, device.compute_config)
    if recipe.gradient_checkpointing:
        parts.denoiser.enable_gradient_checkpointing()
    seconds, losses = _train(parts, recipe, device, texts)
    speed = recipe.batch_size / statistics.median(seconds[len(seconds) // 3 :])
    told = (
        device.precision if all(torch.tensor(losses).isfinite()) else f"{device.precision}: losses that are no numbers"
    )
    return f"{speed:.2f} | {peak_memory(device) / 1e9:.2f} | {told}"


def _random_denoiser(family: Family, device: Device) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(device.dtype)
    try:
        with torch.device(device.name):
            return family.denoiser_class.from_config(family.config)
    finally:
        torch.set_default_dtype(before)


def _train(parts: Parts, recipe: Recipe, device: Device, texts: Shapes) -> tuple[list[float], list[float]]:
    """Seconds and loss of each step."""
    family = parts.family
    flows = family.predicts == "flow"
    objective = objective_of(FlowMatchEulerDiscreteScheduler() if flows else DDPMScheduler())
    optimizer, random = optimizer_of(recipe, parts.learning()), torch.Generator().manual_seed(0)
    side, size = recipe.resolution // family.factor, recipe.batch_size
    shape = (size, family.config["in_channels"], side, side)
    seconds, losses = [], []
    for _ in range(recipe.steps):
        started = time.monotonic()
        latents, noise = torch.randn((2, *shape), generator=random)
        told = {name: torch.randn((size, *each), generator=random) for name, each in texts.items()}
        batch = Batch(latents, noise, objective.draw(size, random), told).to(device.name)
        with torch.autocast(device.type, device.dtype, enabled=device.dtype != torch.float32):
            loss = squared_errors(family, parts.denoiser, {}, objective, batch).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        seconds.append(time.monotonic() - started)
    return seconds, losses


def main() -> None:
    """Print the cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", choices=BASES)
    parser.add_argument("--quantize", default="none")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=50)
    given = parser.parse_args()
    recipe = Recipe.of(
        {
            "steps": given.steps,
            "batch_size": 1,
            "rank": 16,
            "resolution": given.resolution,
            "quantize": given.quantize,
            "gradient_checkpointing": True,
        }
    )
    device = pick_device("cuda", given.precision, "training")
    with tempfile.TemporaryDirectory() as folder:
        print(measure(family_of(write(given.base, Path(folder))), TEXTS[given.base], recipe, device))


if __name__ == "__main__":
    main()
