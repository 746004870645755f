"""Stage 5, similarity: how close every sample came to its photo, and what the best prompt gained."""

import dagster as dg
import numpy as np

from fashion_pipeline.core.rows import Role
from fashion_pipeline.defs.assets.samples import generated_samples
from fashion_pipeline.defs.conditions import FOLLOWS
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
from fashion_pipeline.resources.steps import step
from fashion_pipeline.running.runs import POOL
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.pages.reports import report_prompts
from fashion_pipeline.stages.prompts.similarity import compare_samples
from fashion_pipeline.store.store import Store


@dg.asset(
    **common("prompts", "pytorch", "parquet"),
    automation_condition=FOLLOWS,
    deps=[generated_samples],
    pool=POOL,
    metadata=column_schema("similarities", "sample_features"),
    check_specs=checks(
        "similarity_table",
        blocking={"cosines_in_range": "Every cosine lies between -1 and 1, before anything is cut to that range."},
        warning={
            "cosines_differ": "The cosines are not all alike.",
            "neighbours_count": "Every other style was described by the same encoder and judge, so it gives anchors.",
        },
    ),
)
@step
def similarity_table(
    context: dg.AssetExecutionContext, store: dg.ResourceParam[Store], models: dg.ResourceParam[Models]
) -> dg.MaterializeResult:
    """The cosine of every sample to its photo, by the encoder that chose and by the judge that did not."""
    compared = compare_samples(store, models, context.partition_key, context.log.info, context.run.run_id)
    cosines, left_out = compared.table["cosine"].to_numpy(), compared.measured.left_out
    largest, spread = float(np.abs(cosines).max()), float(cosines.std())
    metadata = {
        **row_count(compared.table),
        "mean cosine by encoder": compared.mean(Role.ENCODER),
        "mean cosine by judge": compared.mean(Role.JUDGE),
        "anchored on": ", ".join(sorted(compared.measured.anchored[Role.ENCODER].on)) or "no other style",
    }
    figures = [
        check("cosines_in_range", largest <= 1, blocking=True, largest=largest),
        check("cosines_differ", spread > 1e-4, standard_deviation=spread),
        check("neighbours_count", not left_out, damaged_or_described_by_another_model=", ".join(left_out) or "none"),
    ]
    return result(compared.record, metadata, figures)


@dg.asset(
    **common("prompts", "json"),
    automation_condition=FOLLOWS,
    deps=[similarity_table],
    metadata=column_schema("prompt_scores"),
)
@step
def prompt_report(
    context: dg.AssetExecutionContext, store: dg.ResourceParam[Store], models: dg.ResourceParam[Models]
) -> dg.MaterializeResult:
    """The best prompt, the strategy that wrote it, and what it gains over the plain one on photos never searched on."""
    reported = report_prompts(store, models, context.partition_key, context.log.info, context.run.run_id)
    helps = reported.report.prompt_verdict
    metadata = {
        "optimized prompt": reported.report.optimized_prompt,
        "strategy": reported.report.strategy,
        "does it help": f"{helps.verdict}: {helps.reason}" if helps else "not compared",
        "similarity score": reported.report.similarity_score,
        **scores(reported.report),
        **gains(reported.report),
        "report": Album(store, reported.record).page(),
    }
    return result(reported.record, metadata)
