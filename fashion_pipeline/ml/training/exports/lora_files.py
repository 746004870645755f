"""A LoRA as files that other programs read: in diffusers' format, and in kohya's for ComfyUI and A1111."""

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.families import Family

ADAPTER_METADATA = "lora_adapter_metadata"
"""Where diffusers looks for rank, alpha and layers; without it an alpha that differs from the rank is lost."""


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
    """Write what a training has learnt in the format of kohya-ss/sd-scripts, with alphas, `ss_` keys and ModelSpec.

    There a layer adds alpha / rank of its product; rsLoRA's larger scale becomes a larger alpha. Layers that are one
    layer there become one addition, whose rank is the sum of theirs.
    """
    scale = recipe.alpha / (math.sqrt(recipe.rank) if recipe.rslora else recipe.rank)
    tensors: dict[str, torch.Tensor] = {}
    for name, layers in _layers_of(load_file(learnt), recipe, family).items():
        downs, ups = zip(*layers, strict=True)
        tensors[f"{name}.lora_down.weight"] = torch.cat(downs)
        tensors[f"{name}.lora_up.weight"] = torch.block_diag(*ups) if len(ups) > 1 else ups[0]  # type: ignore[no-untyped-call]
        tensors[f"{name}.alpha"] = torch.tensor(scale * sum(len(down) for down in downs))
    write_tensors(
        file, tensors, {**_header(learnt), **_kohya_metadata(recipe, scale, family.architecture()[1]), **metadata}
    )


def _layers_of(
    tensors: Mapping[str, torch.Tensor], recipe: Recipe, family: Family
) -> dict[str, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Name of a layer in other programs → A and B of each layer that it stands for, in the order of its outputs."""
    layers: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for name in sorted((name for name in tensors if ".lora_A." in name), key=partial(_place, recipe, family)):
        part, _, inside = name.partition(".")
        layer = inside.partition(".lora_A.")[0].removeprefix("text_model.")
        addition = tensors[name], tensors[name.replace(".lora_A.", ".lora_B.")]
        layers.setdefault(family.other_name(part, layer), []).append(addition)
    return layers


def _place(recipe: Recipe, family: Family, name: str) -> tuple[int, str]:
    part, _, inside = name.partition(".")
    layer = inside.partition(".lora_")[0]
    ends = family.layers(part, recipe)
    return next(place for place, end in enumerate(ends) if f".{layer}".endswith(f".{end}")), name


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
        "network_module": "networks.lora",
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
    if {"feed_forward", "convolution"} & set(recipe.layers):
        values["network_args"] = json.dumps({"conv_dim": recipe.rank, "conv_alpha": scale * recipe.rank})
    return {f"ss_{name}": str(value) for name, value in values.items()}


def _adapter(recipe: Recipe, layers: tuple[str, ...]) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "use_rslora": recipe.rslora,
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
