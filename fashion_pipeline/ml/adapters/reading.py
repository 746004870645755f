"""Files of adapters: what is in them, layer by layer, whatever program wrote them."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from fashion_pipeline.ml.adapters.additions import AdapterError, Addition, MisfitError
from fashion_pipeline.ml.families import Family

ADAPTER_METADATA = "lora_adapter_metadata"
"""Where diffusers looks for rank, alpha and layers; without it an alpha that differs from the rank is lost."""

_PICKLES = (".pt", ".pth", ".bin", ".ckpt")
_OTHERS = {
    "oft_": "an OFT",
    "boft_": "a BOFT",
    ".ia3_": "an IA3",
    ".diff.": "one with differences of whole weights",
    ".diff_b.": "one with differences of biases",
    ".w_norm.": "one with norms of weights",
    "lora_bias": "a LoRA with biases",
    "bias_indices": "one with sparse biases",
    "string_to_param": "a textual inversion",
    "emb_params": "a textual inversion",
}
"""Marks in names → the kind of adapter that has them."""

_KOHYA = re.compile(r"(?P<part>lora_unet|lora_transformer|lycoris|lora_te[12]?)_(?P<layer>[^.]+)")
_WHAT = re.compile(
    r"\.(lora\.down\.weight|lora\.up\.weight|lora_mid\.weight|alpha|dora_scale|lora_magnitude_vector"
    r"|hada_w[12]_[ab]|hada_t[12]|lokr_w[12]|lokr_w[12]_[ab]|lokr_t[12])(?:\.weight)?$"
)
"""The end of a tensor's name that says what it is."""
_SHORT = {"lora.down.weight": "down", "lora.up.weight": "up", "lora_mid.weight": "mid"}
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


@dataclass(frozen=True)
class Adapter:
    """A file, read."""

    additions: dict[tuple[str, str], Addition]
    """(part, layer) → what is added to it; of a layer in kohya's names the points are underscores."""
    settings: dict[str, Any]
    """What it, or `adapter_config.json` beside it, tells of the adapter, the part in front of each name."""


def read_adapter(file: Path, family: Family) -> Adapter:
    """Read a file. Raises AdapterError for one that is damaged, or that holds what is not read."""
    tensors, settings = _read(file, family)
    additions: dict[tuple[str, str], Addition] = {}
    for name, tensor in tensors.items():
        part, layer, what = _parsed(name, family.denoiser)
        additions.setdefault((part, layer), Addition(name)).tensors[what] = tensor.float()
    for addition in additions.values():
        addition.require_whole()
    return Adapter(additions, settings)


def _read(file: Path, family: Family) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a file, and what it or `adapter_config.json` beside it tells of the adapter."""
    if file.suffix.lower() in _PICKLES:
        raise AdapterError(f"{file.name} is a pickle, which may run any program: convert it to safetensors")
    try:
        with safe_open(file, "pt") as opened:
            metadata, names = dict(opened.metadata() or {}), list(opened.keys())
            _require_known(file, names, family)
            tensors = {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{file.name} is no safetensors file, or cut off ({error}): download it again") from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise AdapterError(f"{file.name} has values in {name} that are no numbers: its training failed")
    settings = json.loads(metadata.get(ADAPTER_METADATA, "{}"))
    beside = file.with_name("adapter_config.json")
    if not settings and beside.is_file():
        settings = {
            f"{family.denoiser}.{name}": value for name, value in json.loads(beside.read_text(encoding="utf-8")).items()
        }
    return tensors, settings


def _require_known(file: Path, names: Sequence[str], family: Family) -> None:
    """Raise AdapterError, before a tensor is read, for a file with names that are not read."""
    if not names:
        raise AdapterError(f"{file.name} holds no tensors: download it again")
    for name in names:
        if kind := next((kind for mark, kind in _OTHERS.items() if mark in f"{name}."), ""):
            raise AdapterError(f"{file.name} is {kind} ({name}), which is not read: give a LoRA, LoHa, LoKr or DoRA")
        part = _parsed(name, family.denoiser)[0]
        if part != family.denoiser and not (part in family.text_encoders and family.has(part)):
            raise MisfitError(f"{file.name} is for another family of models than {family.title}, as {name} shows")


def _parsed(name: str, denoiser: str) -> tuple[str, str, str]:
    """A tensor's name → part of the pipeline, layer, and what it is. No part: the denoiser."""
    plain = name
    for start in _UNNAMED:
        plain = plain.removeprefix(start)
    for pattern, instead in _DIFFUSERS:
        plain = pattern.sub(instead, plain)
    end = _WHAT.search(plain)
    if end is None:
        raise AdapterError(f"{name} is part of no adapter that is read")
    layer, what = plain[: end.start()], _SHORT.get(end[1], end[1])
    if kohya := _KOHYA.fullmatch(layer):
        return _TEXT_ENCODERS.get(kohya["part"], denoiser), kohya["layer"], what
    found = _PART.match(layer)
    part = found[1] if found else denoiser
    return part, layer.removeprefix(f"{part}."), what
