"""Stage 8, evaluation: original against specialised model, by photos and seeds that nothing was chosen on."""

import warnings
from typing import Any, Literal

import dagster as dg

from fashion_pipeline.core.evaluation.decisions import WORDS
from fashion_pipeline.core.evaluation.report import Cell
from fashion_pipeline.core.evaluation.verdicts import BEFORE, MIN_PRODUCTS
from fashion_pipeline.core.reports.pictures import interval_chart
from fashion_pipeline.core.rows import Purpose, Role, Split
from fashion_pipeline.defs.assets.features import clip_features
from fashion_pipeline.defs.assets.training import specialised_model
from fashion_pipeline.defs.conditions import FOLLOWS
from fashion_pipeline.defs.configuration import knob, settled
from fashion_pipeline.defs.metadata import (
    Album,
    check,
    checks,
    column_schema,
    common,
    gains,
    result,
    row_count,
    scores,
)
from fashion_pipeline.defs.styles import styles
from fashion_pipeline.resources.steps import step
from fashion_pipeline.running.runs import POOL
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.evaluation.evaluation import Evaluated, evaluate
from fashion_pipeline.stages.evaluation.tracking import track
from fashion_pipeline.stages.pages.reports import comparison_picture
from fashion_pipeline.stages.standing.retraining import change_since_evaluated, evaluated_at
from fashion_pipeline.store.store import Store


class EvaluationConfig(dg.Config):
    """How much the comparison may cost."""

    products: int | None = knob(
        128, f"Most products of dev, and of test, to compare on; a verdict needs {MIN_PRODUCTS}.", ge=1
    )
    publish_when: Literal["as chosen", "better than the best words", "better than the original"] = knob(
        WORDS, "What a model must be to be published; always better than the version in use, too.", unsaid="as chosen"
    )


@dg.asset(
    **common("evaluation", "pytorch", "json"),
    automation_condition=FOLLOWS,
    deps=[specialised_model],
    pool=POOL,
    metadata=column_schema("scores", "evaluation_samples", "nearest"),
    check_specs=checks(
        "evaluation_report",
        blocking={"every_condition_scored": "All models were scored with all their prompts by encoder and judge."},
        warning={"enough_products": f"There are at least {MIN_PRODUCTS} dev products, which a verdict needs."},
    ),
)
@step
def evaluation_report(
    context: dg.AssetExecutionContext,
    config: EvaluationConfig,
    store: dg.ResourceParam[Store],
    models: dg.ResourceParam[Models],
) -> dg.MaterializeResult:
    """The original against the specialised model, each with the plain and the best prompt, and the verdict."""
    limits = settled(config, store, context.partition_key, "evaluation_report")
    evaluated = evaluate(
        store, models, context.partition_key, **limits, report=context.log.info, run=context.run.run_id
    )
    if (address := store.preferences.read().tracking.mlflow) and (problem := track(store, evaluated.record, address)):
        context.log.warning(problem)
    missing = check(
        "every_condition_scored", not evaluated.missing, blocking=True, missing=", ".join(evaluated.missing) or "none"
    )
    enough = evaluated.products >= MIN_PRODUCTS
    figures = [missing, check("enough_products", enough, dev_products=evaluated.products, needed=MIN_PRODUCTS)]
    return result(evaluated.record, _told(store, evaluated), figures)


with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.PreviewWarning)  # of the parameter partitions_def

    @dg.asset_check(asset=evaluation_report, additional_deps=[clip_features], partitions_def=styles)
    def up_to_date(
        context: dg.AssetCheckExecutionContext, store: dg.ResourceParam[Store], models: dg.ResourceParam[Models]
    ) -> dg.AssetCheckResult:
        """Freshness: the style was trained with its photos, profile and settings as they are now.

        It is looked at whenever photos are taken in and after every evaluation.
        """
        change = change_since_evaluated(store, models.profile, context.partition_key)
        changed = str(change) if change.trained else "never trained"
        return dg.AssetCheckResult(
            passed=not (change.trained and change),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"changed since": changed, "evaluated": evaluated_at(store, context.partition_key) or "never"},
        )


def _told(store: Store, made: Evaluated) -> dict[str, Any]:
    report = made.report
    album = Album(store, made.record)
    return {
        "decision": made.decision.headline,
        "why": made.decision.reason,
        "before and after": album.picture("before and after", comparison_picture(store, made.record)),
        "similarity on dev": album.picture("similarity on dev", _chart(report.scores)),
        **scores(report),
        **gains(report),
        "images drawn": made.drawn,
        "report": album.page(),
        **{
            f"{g.measure} gain of {g.model} {g.prompt}": round(g.mean, 4)
            for g in report.gains
            if g.split == Split.DEV and g.against == BEFORE
        },
        **row_count(made.scores),
    }


def _chart(scores: list[Cell]) -> bytes | None:
    """The encoder's similarity on dev, a dot with its interval for each model and prompt."""
    rows = [
        (f"{cell.model}, {cell.prompt} prompt", cell.interval)
        for cell in scores
        if (cell.measure, cell.split) == (Role.ENCODER, Split.DEV) and cell.prompt != Purpose.OTHERS
    ]
    return interval_chart(rows) if rows else None
