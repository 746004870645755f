"""What can be launched: the catalog alone, prompts alone, training alone, or the whole chain, one style a run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from fashion_pipeline.defs.assets.catalog import raw_images
from fashion_pipeline.defs.assets.curation import CurationConfig, curated_subset
from fashion_pipeline.defs.assets.evaluation import EvaluationConfig, evaluation_report, up_to_date
from fashion_pipeline.defs.assets.features import clip_features
from fashion_pipeline.defs.assets.prompts import PromptConfig, prompt_candidates
from fashion_pipeline.defs.assets.publishing import PublishingConfig, approved_model, published_model, style_leaderboard
from fashion_pipeline.defs.assets.samples import SearchConfig, generated_samples
from fashion_pipeline.defs.assets.similarity import prompt_report, similarity_table
from fashion_pipeline.defs.assets.training import TrainingConfig, lora_weights, specialised_model
from fashion_pipeline.defs.configuration import chosen_for, usual
from fashion_pipeline.defs.styles import styles
from fashion_pipeline.settings import Profile, SettingsError, read_settings
from fashion_pipeline.store.store import Store

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

CATALOG = (raw_images, clip_features)
PROMPTS = (prompt_candidates, generated_samples, similarity_table, prompt_report)
FINETUNING = (curated_subset, lora_weights, specialised_model, evaluation_report, published_model, style_leaderboard)

ASSETS = (*CATALOG, *PROMPTS, *FINETUNING)
"""What the jobs make, in the order in which the data flows."""

BY_HAND = (approved_model,)
"""What only a person materialises."""


CHECKS = (up_to_date,)
"""Checks that are steps of their own, in every job."""

POOLS = {step.op.name: step.op.pool for step in (*ASSETS, *BY_HAND, *CHECKS)}
"""Step → the pool that it takes turns in, if it needs the device."""


def _job(
    name: str,
    assets: tuple[dg.AssetsDefinition, ...],
    description: str,
    config: Mapping[str, Mapping[str, Any]] | None = None,
) -> "UnresolvedAssetJobDefinition":
    return dg.define_asset_job(
        name,
        dg.AssetSelection.assets(*assets) | dg.AssetSelection.checks(*CHECKS),
        description=description,
        config=_prefilled([asset.op.name for asset in assets], config or {}),
    )


def _prefilled(steps: Sequence[str], preset: Mapping[str, Mapping[str, Any]]) -> dg.PartitionedConfig[Any]:
    """What the launchpad shows once a style is selected: what was chosen for it, and a preset's numbers over that."""

    def config(style: str) -> Mapping[str, Any]:
        chosen = chosen_for(Store(read_settings().data), style)
        values = {step: {**chosen.get(step, {}), **preset.get(step, {})} for step in steps}
        return {"ops": {step: {"config": value} for step, value in values.items() if value}}

    return dg.PartitionedConfig(styles, run_config_for_partition_key_fn=config)


catalog_job = _job("catalog", CATALOG, "Take in a style's photos and describe them.")
prompt_optimization_job = _job(
    "prompt_optimization", (*CATALOG, *PROMPTS), "Find the prompt that comes closest to the style; no weight changes."
)
finetuning_job = _job(
    "finetuning", (*CATALOG, *FINETUNING), "Train LoRA weights on the curated photos, evaluate, publish if better."
)
full_pipeline_job = _job("full_pipeline", ASSETS, "From photos to a published model.")

JOBS = (catalog_job, prompt_optimization_job, finetuning_job, full_pipeline_job)


def steps_of(job: str) -> list[str]:
    """The steps of a job."""
    assets = {
        catalog_job.name: CATALOG,
        prompt_optimization_job.name: (*CATALOG, *PROMPTS),
        finetuning_job.name: (*CATALOG, *FINETUNING),
        full_pipeline_job.name: ASSETS,
    }
    return [asset.op.name for asset in assets[job]]


def preset_jobs(profile: Profile) -> "list[UnresolvedAssetJobDefinition]":
    """The whole chain once more for each preset of a profile, with its numbers filled in. Raises SettingsError."""
    for name, steps in profile.presets.items():
        require_fields(steps, f"preset {name!r} of profile {profile.name!r}")
    return [
        _job(
            f"{full_pipeline_job.name}_{name}",
            ASSETS,
            f"From photos to a published model, {name}: "
            + "; ".join(f"{step} with {_told(values)}" for step, values in steps.items()),
            steps,
        )
        for name, steps in profile.presets.items()
    ]


def require_fields(config: Mapping[str, Mapping[str, Any]], where: str = "") -> None:
    """Raise SettingsError that names a step or field which is not known."""
    fields, place = step_fields(), f"{where}: " if where else ""
    for step, values in config.items():
        if step not in fields:
            raise SettingsError(f"{place}step {step!r} cannot be configured: choose among {', '.join(sorted(fields))}")
        if unknown := sorted(values.keys() - fields[step]):
            raise SettingsError(f"{place}{unknown[0]} is not known: choose among {', '.join(sorted(fields[step]))}")


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


CONFIGS: dict[str, type[dg.Config]] = {
    "prompt_candidates": PromptConfig,
    "generated_samples": SearchConfig,
    "curated_subset": CurationConfig,
    "lora_weights": TrainingConfig,
    "evaluation_report": EvaluationConfig,
    "published_model": PublishingConfig,
}
"""Step → its configuration."""


def step_fields() -> dict[str, set[str]]:
    """Step → what can be configured of it."""
    return {step: set(config.model_fields) for step, config in CONFIGS.items()}


def defaults() -> dict[str, dict[str, Any]]:
    """Step → field → its default; None is what the profile says."""
    return {step: usual(config) for step, config in CONFIGS.items()}
