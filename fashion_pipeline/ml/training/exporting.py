"""Files that work elsewhere: the LoRA, a complete pipeline folder, and proof that both carry what was trained."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft.utils import set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.pipelines import load_lora, load_pipeline, merge_lora
from fashion_pipeline.ml.sources import find_pipeline
from fashion_pipeline.ml.training.finetuning import WEIGHTS_FILE
from fashion_pipeline.ml.training.identity import RESULT_FILE
from fashion_pipeline.ml.training.methods import prepare, write_lora
from fashion_pipeline.ml.training.objective import random_for
from fashion_pipeline.ml.training.results import TrainingResult

LORA_FILE = "fashion_lora_weights.safetensors"
LEAST_EFFECT = 1e-6
"""Relative change of the UNet's output below which a LoRA changes nothing."""
LARGEST_ERROR = 0.25
"""Share of the LoRA's effect that an export may get wrong. Rounding to fp16 costs a trained LoRA far less."""


class ExportError(RuntimeError):
    """An export does not carry what was trained; the message says how far off it is."""


@dataclass(frozen=True)
class Verification:
    """How an export compares with base and adapter as trained, at one fixed forward pass of the UNet in fp32."""

    effect: float
    """|adapter - base| / |base|: how much the LoRA changes."""
    error: float
    """|export - adapter| / |adapter - base|: which share of that the export gets wrong."""


def export_lora(output: Path, path: Path, metadata: Mapping[str, str]) -> Path:
    """Write a finished training's LoRA to the file `path` in diffusers' format.

    Its header holds the adapter's own metadata (rank, alpha, layers), the recipe and `metadata`.
    Raises ExportError for a LoRA that changes nothing.
    """
    weights = load_file(output / WEIGHTS_FILE)
    if not any(bool(tensor.any()) for name, tensor in weights.items() if "lora_B" in name):
        raise ExportError(f"{output / WEIGHTS_FILE} changes nothing, its lora_B are all zero: train it for longer")
    write_lora(path, weights, {**_header(output / WEIGHTS_FILE), **metadata})
    return path


def export_pipeline(base: str | Path, lora: Path, folder: Path) -> Path:
    """Write a complete pipeline, the LoRA merged into the UNet, in the base's precision; replaces `folder` as a whole.

    Stock diffusers loads it by `from_pretrained`. The merge is computed in fp32 and rounded once.
    """
    source = find_pipeline(base)
    dtype = _stored_dtype(source)
    pipeline = load_pipeline(source, dtype)
    torch.nn.Module.to(pipeline.unet, dtype=torch.float32)
    merge_lora(pipeline, lora)
    torch.nn.Module.to(pipeline.unet, dtype=dtype)
    _replace_folder(folder, pipeline)
    return folder


def verify_export(base: str | Path, output: Path, exported: Path) -> Verification:
    """Compare an exported LoRA file or pipeline folder, as stock diffusers loads it, with the adapter as trained.

    Raises ExportError where the LoRA changes nothing, or the export misses more than `LARGEST_ERROR` of its effect.
    """
    source = find_pipeline(base)
    unet = load_pipeline(source).unet
    before = _predict(unet)
    after = _predict(_with_adapter(unet, output))
    del unet
    there = _predict(_load_exported(source, exported))
    effect = _relative(after - before, before)
    if effect < LEAST_EFFECT:
        raise ExportError(
            f"the LoRA of {output} changes the output by {effect:.1e}, that is nothing: train it for longer"
        )
    error = _relative(there - after, after - before)
    if error > LARGEST_ERROR:
        raise ExportError(
            f"{exported} misses {error:.0%} of what the training changed: "
            "export to a base in higher precision, or train until the change is larger"
        )
    return Verification(effect, error)


def _with_adapter(unet: Any, output: Path) -> Any:
    """The UNet with the LoRA as training had it: layers and alpha from the recipe, not from the file's metadata."""
    recipe = TrainingResult.load(output / RESULT_FILE).identity
    config = Recipe.of({name: recipe[name] for name in ("rank", "alpha", "target_modules")})
    prepare(unet, config)
    weights = {name.removeprefix("unet."): tensor for name, tensor in load_file(output / WEIGHTS_FILE).items()}
    set_peft_model_state_dict(unet, weights)
    return unet


def _load_exported(source: Path, exported: Path) -> Any:
    if exported.is_dir():
        return UNet2DConditionModel.from_pretrained(exported, subfolder="unet", dtype=torch.float32)
    pipeline = load_pipeline(source)
    load_lora(pipeline, exported)
    return pipeline.unet


def _predict(unet: Any) -> torch.Tensor:
    """The UNet's answer to fixed noise, text and timesteps, (2, c, h, w)."""
    random = random_for("verify export")
    config = unet.config
    noise = torch.randn((2, config.in_channels, config.sample_size, config.sample_size), generator=random)
    text = torch.randn((2, 77, config.cross_attention_dim), generator=random)
    with torch.inference_mode():
        answer: torch.Tensor = unet.eval()(noise, torch.tensor([200, 700]), encoder_hidden_states=text).sample
    return answer


def _relative(difference: torch.Tensor, whole: torch.Tensor) -> float:
    return float(difference.norm() / whole.norm().clamp(min=1e-12))


def _stored_dtype(source: Path) -> torch.dtype:
    """The precision that the base's UNet is stored in."""
    file = next(iter(sorted((source / "unet").glob("*.safetensors"))))
    with safe_open(file, "pt") as tensors:
        dtype: torch.dtype = tensors.get_tensor(next(iter(tensors.keys()))).dtype
    return dtype


def _header(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as tensors:
        return dict(tensors.metadata())


def _replace_folder(folder: Path, pipeline: StableDiffusionPipeline) -> None:
    fresh, old = folder.with_name(f".{folder.name}.fresh"), folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    pipeline.save_pretrained(fresh, safe_serialization=True)
    _load_text_encoder_in_single_precision(fresh)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _load_text_encoder_in_single_precision(folder: Path) -> None:
    """Without a `torch_dtype`, diffusers loads its models as fp32 and transformers as stored: the two would not fit."""
    file = folder / "text_encoder" / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
