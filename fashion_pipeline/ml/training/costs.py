"""What a training needs of disk and memory, and what to do where that is not there."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.devices import Device, out_of_memory
from fashion_pipeline.ml.families import family_of
from fashion_pipeline.ml.files import weight_files
from fashion_pipeline.ml.training.methods import Parts, prepare
from fashion_pipeline.ml.training.results import TrainingError

_MOMENTS = {"adamw": 2.0, "adamw8bit": 0.5, "prodigy": 4.0}
"""What an optimizer keeps, in weights that learn."""


def learning_weights(folder: Path, recipe: Recipe) -> list[torch.Tensor]:
    """The weights that learn, without their content. Raises TrainingError for a rank that is larger than a layer."""
    family = family_of(folder)
    with torch.device("meta"):
        parts = Parts.of(family, recipe, family.skeleton)
        prepare(parts, recipe)
    return list(parts.learning().values())


def optimizer_numbers(optimizer: str, weights: Iterable[torch.Tensor]) -> float:
    """How many numbers an optimizer keeps. Adafactor: a row and a column of the last two dimensions of each weight.

    For a convolution of 3 x 3 that is two thirds of its size, for one of 1 x 1 twice its size.
    """
    if optimizer != "adafactor":
        return _MOMENTS[optimizer] * sum(weight.numel() for weight in weights)
    return sum(w.numel() / w.shape[-1] + w.numel() / w.shape[-2] if w.dim() > 1 else w.numel() for w in weights)


def disk_needed(folder: Path, recipe: Recipe) -> int:
    """Bytes that a training and its export take: checkpoints, best and final weights, the denoiser of the model."""
    learning = learning_weights(folder, recipe)
    numbers = sum(weight.numel() for weight in learning)
    checkpoint = 4 * (numbers * (1 + bool(recipe.ema_decay)) + optimizer_numbers(recipe.optimizer, learning))
    weights = sum(file.stat().st_size for file in weight_files(folder / family_of(folder).denoiser))
    return int((recipe.checkpoints_kept + 1) * checkpoint + 3 * 4 * numbers + weights)


def require_space(folder: Path, recipe: Recipe, output: Path) -> None:
    """Raise TrainingError where the disk of `output` has too little room for a training on the base in `folder`."""
    needed, free = disk_needed(folder, recipe), shutil.disk_usage(_there(output)).free
    if free < needed:
        raise TrainingError(
            f"training and export take about {needed / 1e9:.1f} GB, but {output} has {free / 1e9:.1f} GB free: free "
            f"some (fashion-pipeline clean), or set checkpoints_kept (now {recipe.checkpoints_kept}) to 1"
        )


@contextmanager
def memory_suffices(recipe: Recipe, device: Device) -> Iterator[None]:
    """A block in which running out of memory becomes a TrainingError that says which knobs need less."""
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(f"{device.description or device.name} has too little memory: {remedies(recipe)}") from error


def remedies(recipe: Recipe) -> str:
    """The knobs that save memory and are not turned yet, those that cost least first."""
    whole = recipe.batch_size * recipe.gradient_accumulation
    changes = {
        "set precision to auto": recipe.precision == "fp32",
        f"set batch_size to 1 and gradient_accumulation to {whole}, which is the same step": recipe.batch_size > 1,
        "set gradient_checkpointing to true": not recipe.gradient_checkpointing,
        "set optimizer to adafactor": recipe.method == "full" and recipe.optimizer != "adafactor",
        "set method to lora": recipe.method == "full",
        "set text_learning_rate to 0": bool(recipe.text_learning_rate),
        "lower resolution": True,
    }
    return ", or ".join(what for what, helps in changes.items() if helps)


def _there(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return path if path.exists() or path == path.parent else _there(path.parent)
