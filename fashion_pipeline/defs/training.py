"""Stage 7, training: LoRA weights with their curve, and the complete pipeline made from them."""

import hashlib
import json
from typing import Any

import dagster as dg
import pyarrow.compute as pc
from pydantic import Field

from fashion_pipeline.core.pictures import loss_curve, markdown_image, sparkline_svg
from fashion_pipeline.core.samples import photos_of
from fashion_pipeline.defs.curation import caption_format, curated_subset, photo_captions
from fashion_pipeline.defs.metadata import check, checks, column_schema, picture
from fashion_pipeline.defs.styles import OWNERS, styles
from fashion_pipeline.resources.gpu import POOL
from fashion_pipeline.resources.models import WEIGHTS, Models
from fashion_pipeline.resources.storage import Storage

TRAINING = "training.json"
HELD_OUT = 48
"""Most dev photos whose loss is measured during training."""


class TrainingConfig(dg.Config):
    """How the weights are trained; what is left empty comes from the profile."""

    steps: int | None = Field(default=None, ge=1, description="Optimizer steps.")
    rank: int | None = Field(default=None, ge=1, description="Rank of the LoRA.")
    alpha: float | None = Field(default=None, gt=0, description="LoRA scale times rank.")
    batch_size: int | None = Field(default=None, ge=1, description="Images a step.")
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="Peak learning rate.")
    caption_dropout: float = Field(default=0.1, ge=0, le=1, description="Share of captions left empty.")
    horizontal_flip: bool = Field(default=True, description="Mirror images; off for lettering and one-sided garments.")
    seed: int = Field(default=0, ge=0, description="Seed of weights, order and noise.")
    control: bool = Field(default=False, description="Train on the random control instead of the curated subset.")

    def recipe(self, defaults: Any) -> dict[str, Any]:
        """All settings of the training, with the profile's defaults filled in."""
        given = {name: value for name, value in self.model_dump().items() if value is not None and name != "control"}
        recipe = {**vars(defaults), **given}
        recipe["warmup_steps"] = min(50, recipe["steps"] // 10)
        recipe["held_out_every"] = max(1, recipe["steps"] // 10)
        recipe["checkpoint_every"] = max(1, recipe["steps"] // 6)
        recipe["log_every"] = max(1, recipe["steps"] // 60)
        return recipe


@dg.asset(
    partitions_def=styles,
    deps=[curated_subset],
    group_name="training",
    kinds={"pytorch", "safetensors"},
    owners=OWNERS,
    pool=POOL,
    metadata=column_schema("training_log"),
    check_specs=checks(
        "lora_weights",
        blocking={"loss_is_finite": "Every loss is a finite number."},
        warning={
            "held_out_loss_fell": "The loss on dev photos, with fixed noise, is lower at the end than at the start."
        },
    ),
)
def lora_weights(
    context: dg.AssetExecutionContext, config: TrainingConfig, storage: Storage, models: Models
) -> dg.MaterializeResult:
    """LoRA weights trained on the curated pairs, with checkpoints, loss curve and recipe."""
    style = context.partition_key
    recipe = config.recipe(models.read().training)
    wanted = storage.read("training_pairs", style).filter(pc.field("kept") != config.control)
    pairs = [(row["path"], row["caption"]) for row in wanted.to_pylist()]
    held_out = _held_out(storage, models, style)
    contents = sorted([row["id"], row["caption"]] for row in wanted.to_pylist())
    key = _key(recipe, contents, [caption for _, caption in held_out], models.base_fingerprint())
    folder = storage.training_folder(style, key)

    def report(step: int, steps: int, loss: float | None, held_out_loss: float | None) -> None:
        measured = "" if held_out_loss is None else f", held-out loss {held_out_loss:.4f}"
        if loss is not None:
            context.log.info(f"training: step {step} of {steps}, loss {loss:.4f}{measured}")

    result = models.finetune(pairs, held_out, recipe, folder, report)
    log = storage.write("training_log", style, result.log)
    storage.write_report(
        style, TRAINING, {"key": key, "recipe": recipe, "folder": str(folder), "weights": str(folder / WEIGHTS)}
    )
    held = [row["held_out_loss"] for row in result.log if row["held_out_loss"] is not None]
    finite = all(row["loss"] is None or abs(row["loss"]) < float("inf") for row in result.log)
    return dg.MaterializeResult(
        metadata={
            "held-out loss by step": dg.MetadataValue.md(markdown_image(sparkline_svg(held), "held-out loss")),
            "loss curve": picture(loss_curve(log), "loss by step"),
            "steps run": result.steps_run,
            "resumed from step": result.resumed_from or 0,
            "pairs": len(pairs),
            "held-out loss before": held[0],
            "held-out loss after": held[-1],
            "weights": dg.MetadataValue.path(str(folder / WEIGHTS)),
            "recipe": recipe,
            **({"notes": "; ".join(result.notes)} if result.notes else {}),
        },
        data_version=dg.DataVersion(key),
        check_results=[
            check("loss_is_finite", finite, blocking=True, rows=len(result.log)),
            check("held_out_loss_fell", held[-1] < held[0], before=held[0], after=held[-1]),
        ],
    )


@dg.asset(
    partitions_def=styles,
    deps=[curated_subset, lora_weights],
    group_name="training",
    kinds={"pytorch", "safetensors"},
    owners=OWNERS,
    pool=POOL,
    check_specs=checks(
        "specialised_model",
        blocking={"export_equals_adapter": "The exported pipeline predicts what the trained adapter predicts."},
        warning={},
    ),
)
def specialised_model(context: dg.AssetExecutionContext, storage: Storage, models: Models) -> dg.MaterializeResult:
    """A complete Stable Diffusion pipeline with the style merged in, loadable by stock diffusers."""
    style = context.partition_key
    training = storage.read_report(style, TRAINING)
    folder = storage.model_folder(style, training["key"])
    effect, error = models.export(storage.training_folder(style, training["key"]), folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return dg.MaterializeResult(
        metadata={
            "folder": dg.MetadataValue.path(str(folder)),
            "size in MB": size / 1e6,
            "change against the original": effect,
            "export error": error,
        },
        data_version=dg.DataVersion(training["key"]),
        check_results=[check("export_equals_adapter", error < 0.1, blocking=True, relative_error=error, effect=effect)],
    )


def _held_out(storage: Storage, models: Models, style: str) -> list[tuple[str, str]]:
    """(path, caption) of dev photos, captioned like those trained on."""
    images = storage.read("images", style)
    paths = dict(zip(images["id"].to_pylist(), images["path"].to_pylist(), strict=True))
    captions = photo_captions(storage, models, style, caption_format(storage, style))
    return [(paths[photo.id], captions[photo.id][0]) for photo in photos_of(images, "dev", HELD_OUT)]


def _key(recipe: dict[str, Any], contents: list[list[str]], held_out: list[str], base: str) -> str:
    """Names the folder of a training: the same recipe on the same images from the same base is the same training."""
    text = json.dumps([recipe, contents, held_out, base], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
