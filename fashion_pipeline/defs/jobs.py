"""What can be launched: the catalog alone, prompts alone, training alone, or the whole chain, one style a run."""

from typing import TYPE_CHECKING

import dagster as dg

from fashion_pipeline.defs.catalog import raw_images
from fashion_pipeline.defs.curation import CurationConfig, curated_subset
from fashion_pipeline.defs.evaluation import EvaluationConfig, evaluation_report
from fashion_pipeline.defs.features import clip_features
from fashion_pipeline.defs.prompts import PromptConfig, prompt_candidates
from fashion_pipeline.defs.publishing import PublishingConfig, approved_model, published_model, style_leaderboard
from fashion_pipeline.defs.samples import SearchConfig, generated_samples
from fashion_pipeline.defs.similarity import prompt_report, similarity_table
from fashion_pipeline.defs.training import TrainingConfig, lora_weights, specialised_model
from fashion_pipeline.resources.executor import one_process

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

CATALOG = (raw_images, clip_features)
PROMPTS = (prompt_candidates, generated_samples, similarity_table, prompt_report)
FINETUNING = (curated_subset, lora_weights, specialised_model, evaluation_report, published_model, style_leaderboard)

ASSETS = (*CATALOG, *PROMPTS, *FINETUNING)
"""What the jobs make, in the order in which the data flows."""

BY_HAND = (approved_model,)
"""What only a person materialises."""


def _job(name: str, assets: tuple[dg.AssetsDefinition, ...], description: str) -> "UnresolvedAssetJobDefinition":
    return dg.define_asset_job(
        name,
        dg.AssetSelection.assets(*assets),
        description=description,
        executor_def=one_process,
    )


catalog_job = _job("catalog", CATALOG, "Take in a style's photos and describe them.")
prompt_optimization_job = _job(
    "prompt_optimization", (*CATALOG, *PROMPTS), "Find the prompt that comes closest to the style; no weight changes."
)
finetuning_job = _job(
    "finetuning", (*CATALOG, *FINETUNING), "Train LoRA weights on the curated photos, evaluate, publish if better."
)
full_pipeline_job = _job("full_pipeline", ASSETS, "From photos to a published model.")

JOBS = (catalog_job, prompt_optimization_job, finetuning_job, full_pipeline_job)


def step_fields() -> dict[str, set[str]]:
    """Step → what can be configured of it."""
    configs: dict[str, type[dg.Config]] = {
        "prompt_candidates": PromptConfig,
        "generated_samples": SearchConfig,
        "curated_subset": CurationConfig,
        "lora_weights": TrainingConfig,
        "evaluation_report": EvaluationConfig,
        "published_model": PublishingConfig,
    }
    return {step: set(config.model_fields) for step, config in configs.items()}
