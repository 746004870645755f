"""Training methods: which parameters each one trains, what is saved of them, and how that is merged into plain weights.

The loop trains whatever asks for a gradient after `prepare`, and knows nothing of the method.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.families import Family
from fashion_pipeline.ml.training.results import TrainingError

GROWS = {
    "lora": re.compile(r"lora_B"),
    "loha": re.compile(r"hada_w2_b"),
    "lokr": re.compile(r"lokr_w1(?!_b)"),
}
"""Method → the factor of its products that is zero at first: all that is added is in proportion to it, DoRA apart."""


@dataclass
class Parts:
    """The models that a training touches."""

    family: Family
    denoiser: Any
    text_encoders: Mapping[str, Any] = field(default_factory=dict)
    """By the part's name; only where they learn."""

    @classmethod
    def of(cls, family: Family, recipe: Recipe, part: Callable[[str], Any]) -> "Parts":
        """The parts that learn by a recipe, each as `part` gives it by its name."""
        if recipe.text_learning_rate and not family.learning_encoders:
            raise TrainingError(f"the text encoders of {family.title} are not trained: set text_learning_rate to 0")
        encoders = family.learning_encoders if recipe.text_learning_rate else ()
        return cls(family, part(family.denoiser), {name: part(name) for name in encoders})

    def named(self) -> dict[str, Any]:
        """Name of the pipeline's part → model, of those that there are."""
        return {self.family.denoiser: self.denoiser, **self.text_encoders}

    def learning(self) -> dict[str, torch.nn.Parameter]:
        """Name → weight, of all that learns."""
        return {
            f"{part}.{name}": weight
            for part, model in self.named().items()
            for name, weight in model.named_parameters()
            if weight.requires_grad
        }


def prepare(parts: Parts, recipe: Recipe) -> None:
    """Make the parameters that the recipe's method trains require gradients, and freeze all others.

    full: the whole denoiser. Else additions that change nothing yet (one factor is 0, the others are drawn from the
    recipe's seed).
    Raises TrainingError for a rank that is larger than a layer.
    """
    for model in parts.named().values():
        model.requires_grad_(False)
    if recipe.method == "full":
        parts.denoiser.requires_grad_(True)
        return
    for part, model in parts.named().items():
        ends = parts.family.layers(part, recipe)
        if not ends:
            raise TrainingError(f"{parts.family.title} has no layers of {', '.join(recipe.layers)}: name attention")
        if recipe.method != "lokr":  # which has whole factors where the rank is that of a layer
            _require_rank(model, ends, recipe.rank)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model.add_adapter(_additions(recipe, ends))


def learnt(parts: Parts, recipe: Recipe) -> dict[str, torch.Tensor]:
    """What was learnt, on the CPU: name with its part in front → tensor. Additions have the names that peft gives."""
    weights: dict[str, torch.Tensor] = {}
    for part, model in parts.named().items():
        tensors = model.state_dict() if recipe.method == "full" else get_peft_model_state_dict(model)
        weights |= {f"{part}.{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return weights


def restore(parts: Parts, recipe: Recipe, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put into the parts of a base what `learnt` took from a training; additions stay beside the weights."""
    prepare(parts, recipe)
    put(parts, recipe, tensors)


def put(parts: Parts, recipe: Recipe, tensors: Mapping[str, torch.Tensor]) -> None:
    """The same into parts that are prepared."""
    for part, model in parts.named().items():
        of_part = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
        if recipe.method == "full":
            model.load_state_dict(of_part)
        else:
            set_peft_model_state_dict(model, of_part)


def merge(parts: Parts) -> None:
    """Add additions to the weights that they stand beside, and take them away; nothing for method full."""
    for model in parts.named().values():
        if not hasattr(model, "peft_config"):
            continue
        for name, layer in list(model.named_modules()):
            if isinstance(layer, BaseTunerLayer):
                layer.merge()
                above, _, last = name.rpartition(".")
                setattr(model.get_submodule(above), last, layer.get_base_layer())
        del model.peft_config
        model._hf_peft_config_loaded = False


def at_strength(recipe: Recipe, tensors: Mapping[str, torch.Tensor], strength: float) -> dict[str, torch.Tensor]:
    """What was learnt, so many times as strong: of the factors of a product one is scaled. Not for DoRA or full."""
    grows = GROWS[recipe.method]
    return {name: strength * tensor if grows.search(name) else tensor for name, tensor in tensors.items()}


@contextmanager
def single_precision(parts: Parts) -> Iterator[None]:
    """The parts in fp32 inside the block, so that small changes are not lost; rounded once when it ends."""
    stored = {part: next(model.parameters()).dtype for part, model in parts.named().items()}
    for model in parts.named().values():
        torch.nn.Module.to(model, dtype=torch.float32)  # ModelMixin.to warns on every call
    yield
    for part, model in parts.named().items():
        torch.nn.Module.to(model, dtype=stored[part])


def _additions(recipe: Recipe, ends: tuple[str, ...]) -> PeftConfig:
    if recipe.method == "loha":
        return LoHaConfig(r=recipe.rank, alpha=recipe.alpha, target_modules=list(ends))
    if recipe.method == "lokr":
        return LoKrConfig(
            r=recipe.rank,
            alpha=recipe.alpha,
            decompose_factor=recipe.lokr_factor,
            target_modules=list(ends),
        )
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        use_rslora=recipe.rslora,
        use_dora=recipe.dora,
        target_modules=list(ends),
    )


def _require_rank(model: Any, ends: tuple[str, ...], rank: int) -> None:
    """Additions of a rank above that of their layer could say nothing more, and cost more than the layer itself."""
    for name, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        if weight is None or weight.dim() < 2 or not any(name == end or name.endswith(f".{end}") for end in ends):
            continue
        largest = min(weight.shape[0], weight[0].numel())
        if rank > largest:
            raise TrainingError(f"rank is {rank}, but layer {name} has rank {largest} at most: choose a smaller rank")
