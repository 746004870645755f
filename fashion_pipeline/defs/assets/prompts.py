"""Stage 3, prompts: the candidates that each strategy writes for the style."""

import dagster as dg

from fashion_pipeline.defs.assets.features import clip_features
from fashion_pipeline.defs.configuration import knob, settled
from fashion_pipeline.defs.metadata import check, checks, column_schema, common, markdown, result, row_count
from fashion_pipeline.resources.steps import step
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.candidates import write_candidates
from fashion_pipeline.store.store import Store


class PromptConfig(dg.Config):
    """What competes beside what the strategies write."""

    prompts: list[str] | None = knob([], "Prompts of your own that compete as they are.")
    rounds: int | None = knob(
        1,
        "Rounds of search. From the second on, a run starts from the winners of the one before, and draws none of its "
        "images again; each run goes one round further, up to this number.",
        ge=1,
    )


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
@step
def prompt_candidates(
    context: dg.AssetExecutionContext,
    config: PromptConfig,
    store: dg.ResourceParam[Store],
    models: dg.ResourceParam[Models],
) -> dg.MaterializeResult:
    """Prompts by every strategy, from the attributes of the style's search photos."""
    asked = settled(config, store, context.partition_key, "prompt_candidates")
    written = write_candidates(store, models, context.partition_key, **asked, run=context.run.run_id)
    table = written.record.table("candidates")
    metadata = {
        **row_count(table),
        "round": written.round,
        "what the style is not": written.negative or "unknown: no other style was described",
        "candidates": markdown(
            table.select(["strategy", "prompt", "negative_prompt", "text_similarity"])
            .sort_by([("text_similarity", "descending")])
            .to_pylist()
        ),
        "attributes of the style": markdown([vars(attribute) for attribute in written.attributes]),
    }
    figures = [
        check("plain_prompt_present", any(c.strategy == "plain" for c in written.candidates), blocking=True),
        check("nothing_dropped", written.dropped == 0, phrases_dropped=written.dropped),
    ]
    return result(written.record, metadata, figures)
