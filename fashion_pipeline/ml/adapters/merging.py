"""Adapters from anywhere, merged layer by layer: each at its own rank and alpha, and nothing is left out.

Read are LoRA, LoHa, LoKr and DoRA in the formats of kohya-ss/sd-scripts, LyCORIS, OneTrainer, diffusers (of today and
of before it had peft) and peft. Stock diffusers takes one alpha for all layers where they differ or are missing, and
drops what it does not know; here a file that cannot be merged as it is meant is refused with the reason.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fashion_pipeline.ml.adapters.additions import Addition, MisfitError, Settings
from fashion_pipeline.ml.adapters.reading import read_adapter
from fashion_pipeline.ml.families import Family


def merge_adapter(pipeline: Any, family: Family, file: Path, scale: float = 1.0) -> None:
    """Add an adapter's file, times `scale`, to the weights of a pipeline, which must be fp32 to keep small changes.

    Raises AdapterError, before any weight is changed, for a file that cannot be read or does not fit.
    """
    adapter = read_adapter(file, family)
    parts = [family.denoiser, *filter(family.has, family.text_encoders)]
    weights_of = {part: layer_weights(getattr(pipeline, part), partial(family.other_layer, part)) for part in parts}
    changes = []
    for (part, layer), addition in adapter.additions.items():
        weights = weights_named(weights_of[part], part, layer, addition)
        settings = Settings.of(adapter.settings, part, layer)
        changes += _changes(addition, weights, addition.scale(settings), scale)
    with torch.no_grad():
        for weight, change in changes:
            weight.add_(change)


def layer_weights(model: torch.nn.Module, other_layer: Callable[[str], str]) -> dict[str, list[torch.nn.Parameter]]:
    """Layer → its weight, by all names that files have for it; several where others have one layer for them."""
    weights: dict[str, list[torch.nn.Parameter]] = {}
    for name, module in model.named_modules():
        if isinstance(weight := getattr(module, "weight", None), torch.nn.Parameter):
            plain = name.removeprefix("text_model.")  # a level that transformers 5 dropped
            for each in {plain, other_layer(plain)}:
                for spelt in {each, each.replace(".", "_")}:
                    weights.setdefault(spelt, []).append(weight)
    return weights


def weights_named(
    known: Mapping[str, list[torch.nn.Parameter]], part: str, layer: str, addition: Addition
) -> list[torch.nn.Parameter]:
    """The weights that are added to. Raises AdapterError where the model has no such layer."""
    for each in (layer, layer.removeprefix("text_model."), layer.removeprefix("text_model_")):
        if each in known:
            return known[each]
    raise MisfitError(f"the {part} has no layer {layer!r} ({addition.name})")


@torch.no_grad()
def _changes(
    addition: Addition, weights: Sequence[torch.Tensor], own: float, strength: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each weight with what it changes by; weights that are one layer elsewhere are changed as one."""
    change = strength * addition.change(torch.cat([weight.detach() for weight in weights]), own)
    return list(zip(weights, torch.split(change, [len(weight) for weight in weights]), strict=True))
