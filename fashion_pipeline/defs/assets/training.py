"""Stage 7, training: weights with their curve, and the complete pipeline made from them."""

from typing import Any, get_origin

import dagster as dg
from pydantic import Field, create_model

from fashion_pipeline.core.names import PIPELINE
from fashion_pipeline.core.reports.pictures import loss_curve, markdown_image, sparkline_svg
from fashion_pipeline.core.training.recipe import Recipe, descriptions
from fashion_pipeline.defs.assets.curation import curated_subset
from fashion_pipeline.defs.conditions import FOLLOWS
from fashion_pipeline.defs.configuration import settled
from fashion_pipeline.defs.metadata import Album, check, checks, column_schema, common, result
from fashion_pipeline.resources.steps import step
from fashion_pipeline.resources.training import trainer
from fashion_pipeline.running.runs import POOL
from fashion_pipeline.settings import Profile, SettingsError, read_profile, read_settings
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.pages.reports import training_looks
from fashion_pipeline.stages.training.training import Trained, export, train
from fashion_pipeline.store.storage.files import size
from fashion_pipeline.store.store import Store


def _launchpad_type(annotation: Any) -> Any:
    """A type that Dagster's configuration knows: texts for choices, lists for tuples; None where nothing is said."""
    kinds = {tuple: list[str], None: annotation}
    plain = kinds.get(get_origin(annotation), str)
    return plain | None


def _profile() -> Profile | None:
    try:
        return read_profile(read_settings().profile)
    except SettingsError:  # said where the profile is needed
        return None


def _launchpad_fields(profile: Profile | None) -> dict[str, Any]:
    """Knob → type and field; the description says what a field that is left empty means."""
    fields, explained = {}, descriptions()
    for name, knob in Recipe.model_fields.items():
        usual = f"{getattr(profile.training, name)}, as in profile {profile.name}" if profile else "the profile's"
        text = f"{explained[name]} Empty: what was chosen for the style, else {usual}."
        fields[name] = (_launchpad_type(knob.annotation), Field(None, description=text))
    return fields


_FIELDS = _launchpad_fields(_profile())
_KNOBS: Any = create_model("_Knobs", __base__=dg.Config, **_FIELDS)


class TrainingConfig(_KNOBS):  # type: ignore[misc]
    """The knobs of `core.training.recipe.Recipe`; what is left empty comes from the profile."""

    control: bool = Field(default=False, description="Train on the random control instead of the curated subset.")


@dg.asset(
    **common("training", "pytorch", "safetensors"),
    deps=[curated_subset],
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
@step
def lora_weights(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    store: dg.ResourceParam[Store],
    models: dg.ResourceParam[Models],
) -> dg.MaterializeResult:
    """Weights trained on the curated pairs, with checkpoints, loss curve and recipe."""

    knobs = settled(config, store, context.partition_key, "lora_weights")
    control = knobs.pop("control")
    how, run = trainer(context, models, store), context.run.run_id
    trained = train(store, models, context.partition_key, values=knobs, control=control, trainer=how, run=run)
    return result(trained.record, _told(Album(store, trained.record), trained), _checks(trained))


def _told(album: Album, made: Trained) -> dict[str, Any]:
    held = made.held_out
    ends = {"held-out loss before": held[0], "held-out loss after": held[-1]} if held else {}
    return {
        "loss curve": album.picture("loss curve", loss_curve(made.record.table("training_log"))),
        **_looks(album, made),
        "step of these weights": made.step,
        "steps run": made.steps_run,
        "resumed from step": made.resumed_from or 0,
        "peak memory in GB": made.peak_memory / 1e9,
        "pairs": made.pairs,
        **ends,
        "weights": dg.MetadataValue.path(str(made.weights)),
        "recipe": made.recipe.told(),
        "trained in run": made.record.run,
        **({"notes": "; ".join(made.notes)} if made.notes else {}),
    }


def _looks(album: Album, made: Trained) -> dict[str, Any]:
    """What was drawn during training, and how close it came to photos that nothing was trained on."""
    curve = [row["similarity"] for row in made.log if row["similarity"] is not None]
    if not curve:
        return {}
    looks = training_looks(made.record)
    sheets = {f"drawn at step {step}": album.picture(f"step {step}", sheet) for step, sheet in looks}
    return {"similarity by step": dg.MetadataValue.md(markdown_image(sparkline_svg(curve), "similarity")), **sheets}


def _checks(made: Trained) -> list[dg.AssetCheckResult]:
    finite = all(row["loss"] is None or abs(row["loss"]) < float("inf") for row in made.log)
    held = made.held_out
    figures: dict[str, Any] = {"before": held[0], "after": held[-1]} if held else {"dev_photos": 0}
    return [
        check("loss_is_finite", finite and bool(made.log), blocking=True, rows=len(made.log)),
        check("held_out_loss_fell", bool(held) and held[-1] < held[0], **figures),
    ]


@dg.asset(
    **common("training", "pytorch", "safetensors"),
    automation_condition=FOLLOWS,
    deps=[lora_weights],
    pool=POOL,
    check_specs=checks(
        "specialised_model",
        blocking={"export_equals_adapter": "The exported pipeline predicts what the trained adapter predicts."},
        warning={},
    ),
)
@step
def specialised_model(
    context: dg.AssetExecutionContext, store: dg.ResourceParam[Store], models: dg.ResourceParam[Models]
) -> dg.MaterializeResult:
    """A complete Stable Diffusion pipeline with the style merged in, loadable by stock diffusers."""
    exported = export(store, models, context.partition_key, context.run.run_id)
    metadata = {
        "folder": dg.MetadataValue.path(str(exported.record.path(PIPELINE))),
        "size in MB": size(exported.record.path(PIPELINE)) / 1e6,
        "change against the original": exported.effect,
        "export error": exported.error,
    }
    same = check(
        "export_equals_adapter",
        exported.error < 0.1,
        blocking=True,
        relative_error=exported.error,
        effect=exported.effect,
    )
    return result(exported.record, metadata, [same])
