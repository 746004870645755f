"""Additions as files that other programs read: in diffusers' format, and in kohya's for ComfyUI and A1111."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.adapters.reading import ADAPTER_METADATA
from fashion_pipeline.ml.families import Family

_WHAT = re.compile(r"\.((?:lora_[AB]|hada|lokr|lora_magnitude_vector)[^.]*(?:\.weight)?)$")
"""The end of a learnt tensor's name that says what it is."""
_OTHERS = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
    "lora_magnitude_vector.weight": "dora_scale",
}
_INNER = ("lora_down.weight", "hada_w1_b", "hada_w2_b")
"""The halves of products that read a layer's inputs: (rank, inputs, …)."""


def write_tensors(file: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file under a temporary name, then rename it; equal content gives equal bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.fresh")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, fresh, metadata={**metadata, "format": "pt"})
    _sort_header(fresh)
    fresh.replace(file)


def write_lora(learnt: Path, recipe: Recipe, file: Path, metadata: Mapping[str, str], family: Family) -> None:
    """Write what a training has learnt in diffusers' format, with the adapter's metadata beside `metadata`."""
    parts = load_file(learnt)
    there = sorted({name.partition(".")[0] for name in parts})
    adapters = {part: _adapter(recipe, family.layers(part, recipe)) for part in there}
    adapter_metadata = {f"{part}.{name}": value for part in there for name, value in adapters[part].items()}
    write_tensors(
        file,
        {_for_older_versions(name): tensor for name, tensor in parts.items()},
        {**_header(learnt), **metadata, ADAPTER_METADATA: json.dumps(adapter_metadata, indent=2, sort_keys=True)},
    )


def write_kohya(learnt: Path, recipe: Recipe, file: Path, metadata: Mapping[str, str], family: Family) -> None:
    """Write what a training has learnt as kohya-ss/sd-scripts and LyCORIS do, with alphas, `ss_` keys and ModelSpec.

    There a layer adds alpha / rank of its product; rsLoRA's larger scale becomes a larger alpha. Layers that are one
    layer there become one addition, whose rank is the sum of theirs; of LoKr there is none, and no file then.
    """
    layers_of = _layers_of(load_file(learnt), recipe, family)
    if recipe.method == "lokr" and any(len(layers) > 1 for layers in layers_of.values()):
        return
    scale = recipe.alpha / (math.sqrt(recipe.rank) if recipe.rslora else recipe.rank)
    tensors: dict[str, torch.Tensor] = {}
    for name, layers in layers_of.items():
        together = _together(layers)
        rank = _rank(together)
        if rank is None:
            together["lokr_w1"] = scale * together["lokr_w1"]  # what has no rank is not scaled there
        else:
            together["alpha"] = torch.tensor(scale * rank)
        tensors |= {f"{name}.{what}": tensor for what, tensor in together.items()}
    write_tensors(
        file, tensors, {**_header(learnt), **_kohya_metadata(recipe, scale, family.architecture()[1]), **metadata}
    )


def _layers_of(
    tensors: Mapping[str, torch.Tensor], recipe: Recipe, family: Family
) -> dict[str, list[dict[str, torch.Tensor]]]:
    """Name of a layer in other programs → the tensors of each layer that it stands for, in the order of its outputs."""
    layers: dict[str, dict[tuple[int, str], dict[str, torch.Tensor]]] = {}
    for name, tensor in tensors.items():
        end = _WHAT.search(name)
        assert end is not None, name
        part, _, layer = name[: end.start()].partition(".")
        other = family.other_name(part, layer.removeprefix("text_model."))
        place = _place(family.layers(part, recipe), layer), layer
        layers.setdefault(other, {}).setdefault(place, {})[_OTHERS.get(end[1], end[1])] = tensor
    return {other: [places[place] for place in sorted(places)] for other, places in sorted(layers.items())}


def _together(layers: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The tensors of several layers as those of one, their outputs in a row: exact, at the sum of their ranks."""
    one: dict[str, torch.Tensor] = {}
    for what in layers[0]:
        of_each = [layer[what] for layer in layers]
        if what == "dora_scale":
            one[what] = torch.cat([lengths.reshape(-1, *[1] * (_dim(layers[0]) - 1)) for lengths in of_each])
        elif len(of_each) == 1:
            one[what] = of_each[0]
        elif what in _INNER:
            one[what] = torch.cat(of_each)
        else:
            one[what] = torch.block_diag(*of_each)  # type: ignore[no-untyped-call]
    return one


def _dim(layer: Mapping[str, torch.Tensor]) -> int:
    return layer["lora_down.weight"].dim()


def _rank(layer: Mapping[str, torch.Tensor]) -> int | None:
    """Of a layer's products; None for a LoKr of two whole factors."""
    return next((len(layer[what]) for what in (*_INNER, "lokr_w1_b", "lokr_w2_b") if what in layer), None)


def _place(ends: Sequence[str], layer: str) -> int:
    return next(place for place, end in enumerate(ends) if f".{layer}".endswith(f".{end}"))


def model_spec(title: str, side: int, family: Family) -> dict[str, str]:
    """The header of Stability AI's ModelSpec 1.0.0, by which ComfyUI and A1111 know what a file is for."""
    predicts = {"epsilon": "epsilon", "v_prediction": "v"}.get(family.predicts)
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{family.architecture()[0]}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.resolution": f"{side}x{side}",
        **({"modelspec.prediction_type": predicts} if predicts else {}),
    }


def _kohya_metadata(recipe: Recipe, scale: float, version: str) -> dict[str, str]:
    """What kohya's trainer writes and other programs show."""
    values: dict[str, Any] = {
        "network_module": "networks.lora" if recipe.method == "lora" and not recipe.dora else "lycoris.kohya",
        "network_dim": recipe.rank,
        "network_alpha": f"{scale * recipe.rank:g}",
        "base_model_version": version,
        "v2": version == "sd_v2",
        "max_train_steps": recipe.steps,
        "learning_rate": recipe.learning_rate,
        "text_encoder_lr": recipe.text_learning_rate,
        "unet_lr": recipe.learning_rate,
        "lr_scheduler": recipe.schedule,
        "lr_warmup_steps": recipe.warmup_steps,
        "optimizer": recipe.optimizer,
        "total_batch_size": recipe.batch_size * recipe.gradient_accumulation,
        "min_snr_gamma": recipe.min_snr_gamma,
        "noise_offset": recipe.noise_offset,
        "caption_dropout_rate": recipe.caption_dropout,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "seed": recipe.seed,
    }
    told: dict[str, Any] = {}
    if {"feed_forward", "convolution"} & set(recipe.layers):
        told |= {"conv_dim": recipe.rank, "conv_alpha": scale * recipe.rank}
    if values["network_module"] == "lycoris.kohya":
        told |= {"algo": "lora" if recipe.dora else recipe.method, "dora_wd": recipe.dora}
    if told:
        values["network_args"] = json.dumps(told)
    return {f"ss_{name}": str(value) for name, value in values.items()}


def _adapter(recipe: Recipe, layers: tuple[str, ...]) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "use_rslora": recipe.rslora,
        **({"use_dora": True} if recipe.dora else {}),
        "target_modules": sorted(layers),
    }


def _for_older_versions(name: str) -> str:
    """transformers 5 dropped a level of CLIP's text model; diffusers reads names with it, whichever version."""
    part, _, inside = name.partition(".")
    return f"{part}.text_model.{inside.removeprefix('text_model.')}" if part.startswith("text_encoder") else name


def _header(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as tensors:
        return dict(tensors.metadata())


def _sort_header(file: Path) -> None:
    """Put a safetensors file's metadata in order, in place: the library shuffles them, and equal LoRAs hash unequal."""
    with file.open("r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"{file} has a header that cannot be put in order in its place")
        stream.seek(8)
        stream.write(text.ljust(length))
