"""LoRA files from anywhere, merged layer by layer: each adds B A alpha / rank of that layer, and nothing is left out.

Read are the formats of kohya-ss/sd-scripts, diffusers (of today and of before it had peft) and peft. Stock diffusers
takes one alpha for all layers where they differ or are missing, and drops what it does not know; here a file that
cannot be merged as it is meant is refused with the reason.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fashion_pipeline.ml.families import Family

_ADAPTER_METADATA = "lora_adapter_metadata"
_PICKLES = (".pt", ".pth", ".bin", ".ckpt")
_OTHERS = {
    "hada_w": "a LoHa",
    "lokr_w": "a LoKr",
    "oft_": "an OFT",
    "boft_": "a BOFT",
    ".ia3_": "an IA3",
    "lora_mid": "a LoCon with Tucker decomposition",
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    ".diff": "one with differences of whole weights",
    ".w_norm": "one with norms of weights",
}
"""Ends of names → the kind of adapter that has them."""

_KOHYA = re.compile(
    r"(?P<part>lora_unet|lora_transformer|lycoris|lora_te[12]?)_(?P<layer>[^.]+)"
    r"\.(?P<what>lora_down\.weight|lora_up\.weight|alpha)"
)
_DIFFUSERS = (
    (re.compile(r"\.processor\.to_(q|k|v|out)_lora\.(down|up)\.weight$"), r".to_\1.lora.\2.weight"),
    (re.compile(r"\.to_out\.lora\."), ".to_out.0.lora."),
    (re.compile(r"\.lora_linear_layer\.(down|up)\.weight$"), r".lora.\1.weight"),
    (re.compile(r"\.lora_(down|up)\.weight$"), r".lora.\1.weight"),
    (re.compile(r"\.lora_A(\.\w+)?\.weight$"), ".lora.down.weight"),
    (re.compile(r"\.lora_B(\.\w+)?\.weight$"), ".lora.up.weight"),
)
_TEXT_ENCODERS = {"lora_te": "text_encoder", "lora_te1": "text_encoder", "lora_te2": "text_encoder_2"}
_UNNAMED = ("base_model.model.", "diffusion_model.")
"""What stands in front of the denoiser's layers where a file has nothing else."""
_PART = re.compile(r"(unet|transformer|text_encoder(?:_\d)?)\.")


class AdapterError(ValueError):
    """A file that is no LoRA that is read, or none for this model; the message says why."""


class MisfitError(AdapterError):
    """A LoRA of another model."""


@dataclass
class _Addition:
    """What is added to one layer."""

    name: str
    """As the file calls the layer."""
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    """`down` (rank, in, …) and `up` (out, rank, …), perhaps `alpha`."""

    @property
    def rank(self) -> int:
        return int(self.tensors["down"].shape[0])


def merge_adapter(pipeline: Any, family: Family, file: Path, scale: float = 1.0) -> None:
    """Add a LoRA file, times `scale`, to the weights of a pipeline, which must be fp32 to keep small changes.

    Raises AdapterError, before any weight is changed, for a file that cannot be read or does not fit.
    """
    tensors, settings = _read(file, family)
    parts = [family.denoiser, *filter(family.has, family.text_encoders)]
    weights_of = {part: _weights(getattr(pipeline, part), partial(family.other_layer, part)) for part in parts}
    deltas = []
    for (part, layer), addition in _additions(tensors, family.denoiser).items():
        weights = _weights_named(weights_of[part], part, layer, addition)
        deltas += _deltas(addition, weights, scale * _scale(addition, part, layer, settings))
    with torch.no_grad():
        for weight, delta in deltas:
            weight.add_(delta)


def _read(file: Path, family: Family) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a file, and what it or `adapter_config.json` beside it tells of the adapter."""
    if file.suffix.lower() in _PICKLES:
        raise AdapterError(f"{file.name} is a pickle, which may run any program: convert it to safetensors")
    try:
        with safe_open(file, "pt") as opened:
            metadata, names = dict(opened.metadata() or {}), list(opened.keys())
            _require_plain(file, names, family)
            tensors = {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{file.name} is no safetensors file, or cut off ({error}): download it again") from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise AdapterError(f"{file.name} has values in {name} that are no numbers: its training failed")
    settings = json.loads(metadata.get(_ADAPTER_METADATA, "{}"))
    beside = file.with_name("adapter_config.json")
    if not settings and beside.is_file():
        settings = {
            f"{family.denoiser}.{name}": value for name, value in json.loads(beside.read_text(encoding="utf-8")).items()
        }
    return tensors, settings


def _require_plain(file: Path, names: Sequence[str], family: Family) -> None:
    """Raise AdapterError, before a tensor is read, for a file with names that are no plain LoRA's."""
    if not names:
        raise AdapterError(f"{file.name} holds no tensors: download it again")
    for name in names:
        if kind := next((kind for mark, kind in _OTHERS.items() if mark in name), ""):
            raise AdapterError(f"{file.name} is {kind} ({name}), which is not read: give a plain LoRA")
        part = _parsed(name, family.denoiser)[0]
        if part != family.denoiser and not (part in family.text_encoders and family.has(part)):
            raise MisfitError(f"{file.name} is for another family of models than {family.title}, as {name} shows")


def _additions(tensors: Mapping[str, torch.Tensor], denoiser: str) -> dict[tuple[str, str], _Addition]:
    """(part, layer) → what is added to it; of a layer in kohya's names the points are underscores."""
    additions: dict[tuple[str, str], _Addition] = {}
    for name, tensor in tensors.items():
        part, layer, what = _parsed(name, denoiser)
        additions.setdefault((part, layer), _Addition(name)).tensors[what] = tensor.float()
    for addition in additions.values():
        if not {"down", "up"} <= addition.tensors.keys():
            raise AdapterError(f"only one half of what is added to a layer is there ({addition.name})")
    return additions


def _parsed(name: str, denoiser: str) -> tuple[str, str, str]:
    """A tensor's name → part of the pipeline, layer, and what it is: down, up or alpha. No part: the denoiser."""
    if kohya := _KOHYA.fullmatch(name):
        what = {"lora_down.weight": "down", "lora_up.weight": "up"}.get(kohya["what"], "alpha")
        return _TEXT_ENCODERS.get(kohya["part"], denoiser), kohya["layer"], what
    plain = name
    for start in _UNNAMED:
        plain = plain.removeprefix(start)
    for pattern, instead in _DIFFUSERS:
        plain = pattern.sub(instead, plain)
    layer, mark, what = plain.rpartition(".lora.")
    if not mark and plain.endswith(".alpha"):
        layer, what = plain.removesuffix(".alpha"), "alpha.weight"
    elif what not in ("down.weight", "up.weight"):
        raise AdapterError(f"{name} is part of no LoRA that is read")
    found = _PART.match(layer)
    part = found[1] if found else denoiser
    return part, layer.removeprefix(f"{part}."), what.removesuffix(".weight")


def _weights(model: torch.nn.Module, other_layer: Callable[[str], str]) -> dict[str, list[torch.nn.Parameter]]:
    """Layer → its weight, by all names that files have for it; several where others have one layer for them."""
    weights: dict[str, list[torch.nn.Parameter]] = {}
    for name, module in model.named_modules():
        if isinstance(weight := getattr(module, "weight", None), torch.nn.Parameter):
            plain = name.removeprefix("text_model.")  # a level that transformers 5 dropped
            for each in {plain, other_layer(plain)}:
                for spelt in {each, each.replace(".", "_")}:
                    weights.setdefault(spelt, []).append(weight)
    return weights


def _weights_named(
    known: Mapping[str, list[torch.nn.Parameter]], part: str, layer: str, addition: _Addition
) -> list[torch.nn.Parameter]:
    """The weights that are added to. Raises AdapterError where the model has no such layer."""
    for each in (layer, layer.removeprefix("text_model."), layer.removeprefix("text_model_")):
        if each in known:
            return known[each]
    raise MisfitError(f"the {part} has no layer {layer!r} ({addition.name})")


def _scale(addition: _Addition, part: str, layer: str, settings: Mapping[str, Any]) -> float:
    """alpha / rank of a layer, or alpha / sqrt(rank) of an rsLoRA. Without an alpha it is the rank."""
    if "alpha" in addition.tensors:
        return float(addition.tensors["alpha"]) / addition.rank
    alpha = settings.get(f"{part}.lora_alpha")
    patterns = dict(settings.get(f"{part}.alpha_pattern") or {})
    alpha = next((own for end, own in patterns.items() if layer == end or layer.endswith(f".{end}")), alpha)
    if alpha is None:
        return 1.0
    return float(alpha) / (math.sqrt(addition.rank) if settings.get(f"{part}.use_rslora") else addition.rank)


def _deltas(
    addition: _Addition, weights: Sequence[torch.Tensor], scale: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each weight with its rows of B A times `scale`, in its shape: of a convolution A has the kernel, B is 1 x 1."""
    down, up = addition.tensors["down"], addition.tensors["up"]
    rows, shape = sum(len(weight) for weight in weights), weights[0].shape[1:]
    product = up.flatten(1) @ down.flatten(1) if up.flatten(1).shape[1] == len(down) else torch.empty(0)
    if product.numel() != rows * shape.numel() or len(product) != rows:
        raise MisfitError(
            f"{addition.name} is for a layer of another size: {tuple(up.shape)} times {tuple(down.shape)} is not "
            f"{(rows, *shape)}"
        )
    of_each = torch.split(scale * product, [len(weight) for weight in weights])
    return [(weight, delta.reshape(weight.shape).to(weight)) for weight, delta in zip(weights, of_each, strict=True)]
