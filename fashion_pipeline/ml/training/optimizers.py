"""The optimizers of a recipe, and a moving average of the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.training.results import TrainingError

Weights = Mapping[str, torch.nn.Parameter]

_MEND = "pip install 'fashion-pipeline[optimizers]', or set optimizer to adamw or adafactor"


def optimizer_of(recipe: Recipe, learning: Weights) -> torch.optim.Optimizer:
    """The recipe's optimizer. The weights of each text encoder are a group of their own, with a rate of their own.

    Raises TrainingError where a library is missing.
    """
    weights: dict[str, list[torch.nn.Parameter]] = {}
    for name, weight in learning.items():
        weights.setdefault(name.partition(".")[0], []).append(weight)
    of_text = recipe.text_learning_rate / recipe.learning_rate
    rates = {part: of_text if part.startswith("text_encoder") else 1.0 for part in weights}
    groups = [
        {"params": weights[part], "lr": recipe.learning_rate * rates[part], "relative_rate": rates[part]}
        for part in weights
    ]
    decay = recipe.weight_decay
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=decay, fused=True)
    if recipe.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, weight_decay=decay)
    if recipe.optimizer == "adamw8bit":
        return extra("bitsandbytes", "optimizer", _MEND).optim.AdamW8bit(groups, weight_decay=decay)  # type: ignore[no-any-return]
    return extra("prodigyopt", "optimizer", _MEND).Prodigy(  # type: ignore[no-any-return]
        groups, weight_decay=decay, safeguard_warmup=True, use_bias_correction=True
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of the next step; each group keeps its own relation to it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["relative_rate"]


def extra(library: str, what: str, mend: str) -> Any:
    """A library that is not always installed. Raises TrainingError that says what needs it and what to do."""
    from importlib import import_module

    try:
        return import_module(library)
    except ImportError as error:
        raise TrainingError(f"{what} needs {library.partition('.')[0]}, which is not installed: {mend}") from error


class Average:
    """An exponential moving average of weights, which starts fast: decay is at most (1 + step) / (10 + step)."""

    def __init__(self, learning: Weights, decay: float) -> None:
        self._learning, self._decay = learning, decay
        self.tensors = {name: weight.detach().clone() for name, weight in learning.items()} if decay else {}
        """The averages; none without a decay."""

    def update(self, step: int) -> None:
        """Take in the weights after `step` steps."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, average in self.tensors.items():
            average.lerp_(self._learning[name].detach(), 1 - decay)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on with averages that were kept."""
        for name, average in self.tensors.items():
            average.copy_(tensors[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages take the place of the weights inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, tensor in self.tensors.items():
            weight = self._learning[name]
            self.tensors[name], weight.data = weight.data, tensor
