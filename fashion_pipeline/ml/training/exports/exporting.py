"""Files that work elsewhere: LoRA files, a complete pipeline folder, and proof that each carries what was trained."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from fashion_pipeline.core.names import KOHYA_LORA_WEIGHTS, LORA_WEIGHTS, TRAINING_RESULT
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.adapters.merging import merge_adapter
from fashion_pipeline.ml.families import Family, family_of
from fashion_pipeline.ml.files import stored_dtype, weight_files
from fashion_pipeline.ml.pipelines import load_lora
from fashion_pipeline.ml.sources import find_pipeline
from fashion_pipeline.ml.training.exports.lora_files import model_spec, write_kohya, write_lora
from fashion_pipeline.ml.training.exports.pipeline_folders import write_pipeline
from fashion_pipeline.ml.training.methods import GROWS, Parts, merge, restore, single_precision
from fashion_pipeline.ml.training.objective import random_for
from fashion_pipeline.ml.training.results import TrainingResult

LEAST_EFFECT = 1e-6
"""Relative change of the denoiser's output below which a training changes nothing."""
LARGEST_ERROR = 0.25
"""Share of the training's effect that an export may get wrong. Rounding to fp16 costs a trained LoRA far less."""


class ExportError(RuntimeError):
    """An export does not carry what was trained; the message says how far off it is."""


@dataclass(frozen=True)
class Verification:
    """How an export compares with base and training, at one fixed pass of text encoders and denoiser in fp32."""

    effect: float
    """|trained - base| / |base|: how much the training changes."""
    error: float
    """|export - trained| / |trained - base|: which share of that the export gets wrong."""


def export_loras(base: str | Path, output: Path, folder: Path, metadata: Mapping[str, str]) -> list[Path]:
    """Write what a training adds to the base into `folder`, in diffusers' and in kohya's format.

    diffusers reads LoRA, and DoRA of the denoiser; other programs LoHa and LoKr too; for method full there is no file.
    The headers hold the adapter's own metadata (rank, alpha, layers), the recipe, ModelSpec and `metadata`. Raises
    ExportError for additions that change nothing.
    """
    result = TrainingResult.load(output / TRAINING_RESULT)
    recipe = recipe_of(result)
    if recipe.method == "full":
        return []
    grows = GROWS[recipe.method]
    if not any(bool(tensor.any()) for name, tensor in load_file(result.weights).items() if grows.search(name)):
        raise ExportError(f"{result.weights} changes nothing, its {grows.pattern} are all zero: train it for longer")
    family = family_of(find_pipeline(base))
    header = model_spec(metadata.get("title", folder.name), recipe.resolution or family.side, family)
    files = [folder / LORA_WEIGHTS, folder / KOHYA_LORA_WEIGHTS]
    if recipe.method == "lora" and not (recipe.dora and recipe.text_learning_rate):
        write_lora(result.weights, recipe, files[0], {**header, **metadata}, family)
    write_kohya(result.weights, recipe, files[1], {**header, **metadata}, family)
    return [file for file in files if file.exists()]


def export_pipeline(base: str | Path, output: Path, folder: Path) -> Path:
    """Write a complete pipeline that has learnt what a training did, in the base's precision; replaces `folder` whole.

    Stock diffusers loads it by `from_pretrained`. A LoRA is merged in fp32 and rounded once.
    """
    source = find_pipeline(base)
    result = TrainingResult.load(output / TRAINING_RESULT)
    family = family_of(source)
    pipeline = family.load(stored_dtype(weight_files(source / family.denoiser)[0]))
    parts = Parts.of(family, recipe_of(result), partial(getattr, pipeline))
    with single_precision(parts):
        restore(parts, recipe_of(result), load_file(result.weights))
        merge(parts)
    _replace_folder(folder, source, parts)
    return folder


def verify_export(base: str | Path, output: Path, exported: Path) -> Verification:
    """Compare an exported LoRA file or pipeline folder, as stock diffusers loads it, with the weights as trained.

    Raises ExportError where the training changes nothing, or the export misses more than `LARGEST_ERROR` of its effect.
    """
    source = find_pipeline(base)
    result = TrainingResult.load(output / TRAINING_RESULT)
    family = family_of(source)
    pipeline = family.load()
    before = _predict(family, pipeline)
    parts = Parts.of(family, recipe_of(result), partial(getattr, pipeline))
    restore(parts, recipe_of(result), load_file(result.weights))
    after = _predict(family, pipeline)
    del pipeline, parts
    there = _predict(family, _load_exported(family, exported, recipe_of(result)))
    effect = _relative(after - before, before)
    if effect < LEAST_EFFECT:
        raise ExportError(
            f"the training of {output} changes the output by {effect:.1e}, that is nothing: train it for longer"
        )
    error = _relative(there - after, after - before)
    if error > LARGEST_ERROR:
        raise ExportError(
            f"{exported} misses {error:.0%} of what the training changed: "
            "export to a base in higher precision, or train until the change is larger"
        )
    return Verification(effect, error)


def effect_of(base: str | Path, lora: Path) -> float:
    """How much a LoRA file from anywhere changes what the base predicts: |with - base| / |base|.

    Raises AdapterError for a file that cannot be read or does not fit.
    """
    family = family_of(find_pipeline(base))
    pipeline = family.load()
    before = _predict(family, pipeline)
    merge_adapter(pipeline, family, lora)
    return _relative(_predict(family, pipeline) - before, before)


def recipe_of(result: TrainingResult) -> Recipe:
    """The knobs of a finished training, by its identity."""
    return Recipe.among(result.identity)


def _load_exported(family: Family, exported: Path, recipe: Recipe) -> Any:
    """As stock diffusers loads it; what that does not read, as this program does."""
    if exported.is_dir():
        return family_of(exported).load()
    pipeline = family.load()
    if recipe.method == "lora":
        load_lora(pipeline, exported)
    else:
        merge_adapter(pipeline, family, exported)
    return pipeline


def _predict(family: Family, pipeline: Any) -> torch.Tensor:
    """The answer of text encoders and denoiser to fixed noise, tokens and timesteps, (2, c, h, w)."""
    random = random_for("verify export")
    side = family.probe_side
    noise = torch.randn((2, family.config["in_channels"], side, side), generator=random)
    with torch.inference_mode():
        texts = family.probe(pipeline, random)
        return family.predict(getattr(pipeline, family.denoiser).eval(), noise, torch.tensor([200, 700]), texts)


def _relative(difference: torch.Tensor, whole: torch.Tensor) -> float:
    return float(difference.norm() / whole.norm().clamp(min=1e-12))


def _replace_folder(folder: Path, source: Path, parts: Parts) -> None:
    fresh, old = folder.with_name(f".{folder.name}.fresh"), folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    write_pipeline(fresh, source, parts)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
