"""Stage 3, prompts: the candidates that each strategy writes for the style."""

import dagster as dg

from fashion_pipeline.defs.features import clip_features
from fashion_pipeline.defs.metadata import check, checks, column_schema, common, markdown, result, row_count
from fashion_pipeline.stages.models import Models
from fashion_pipeline.stages.prompts import write_candidates
from fashion_pipeline.store.store import Store


@dg.asset(
    **common("prompts", "pytorch", "parquet"),
    deps=[clip_features],
    metadata=column_schema("candidates"),
    check_specs=checks(
        "prompt_candidates",
        blocking={"plain_prompt_present": "The plain prompt, which everything is compared with, is a candidate."},
        warning={"nothing_dropped": "Every prompt fits into the text encoder with all its phrases."},
    ),
)
def prompt_candidates(
    context: dg.AssetExecutionContext, store: dg.ResourceParam[Store], models: dg.ResourceParam[Models]
) -> dg.MaterializeResult:
    """Prompts by every strategy, from the attributes of the style's search photos."""
    made = write_candidates(store, models, context.partition_key, context.run.run_id)
    table = made.record.table("candidates")
    metadata = {
        **row_count(table),
        "candidates": markdown(table.select(["strategy", "prompt", "text_similarity"]).to_pylist()),
        "attributes of the style": markdown([vars(attribute) for attribute in made.attributes]),
    }
    figures = [
        check("plain_prompt_present", any(c.strategy == "plain" for c in made.candidates), blocking=True),
        check("nothing_dropped", made.dropped == 0, phrases_dropped=made.dropped),
    ]
    return result(made.record, metadata, figures)
