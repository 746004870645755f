"""Stage 4, samples: the search spends its budget of images, and the winner is drawn anew for photos it never saw."""

import dagster as dg

from fashion_pipeline.core.rows import Sample, Split
from fashion_pipeline.defs.assets.prompts import prompt_candidates
from fashion_pipeline.defs.configuration import knob, settled
from fashion_pipeline.defs.metadata import Album, check, checks, column_schema, common, markdown, result, row_count
from fashion_pipeline.resources.steps import step
from fashion_pipeline.running.runs import POOL
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.search import Searched, search
from fashion_pipeline.store.store import Store


class SearchConfig(dg.Config):
    """What the search for the best prompt may cost."""

    budget: int | None = knob(
        192, "Images that the search may draw to find the best prompt; looks count by their denoising steps.", ge=2
    )
    held_out_products: int | None = knob(
        128, "Most products of dev, and of test, for which plain and best prompt are drawn.", ge=1
    )


@dg.asset(
    **common("prompts", "pytorch", "png", "parquet"),
    deps=[prompt_candidates],
    pool=POOL,
    metadata=column_schema("samples", "leaderboard", "explored", "formats", "phrases", "progress"),
    check_specs=checks(
        "generated_samples",
        blocking={"every_image_exists": "Every row has its PNG, and it can be read."},
        warning={"within_budget": "The search drew no more images than its budget."},
    ),
)
@step
def generated_samples(
    context: dg.AssetExecutionContext,
    config: SearchConfig,
    store: dg.ResourceParam[Store],
    models: dg.ResourceParam[Models],
) -> dg.MaterializeResult:
    """Images of the original model: for the search, and of the plain and the best prompt for held-out photos."""
    limits = settled(config, store, context.partition_key, "generated_samples")
    searched = search(store, models, context.partition_key, **limits, report=context.log.info, run=context.run.run_id)
    leaderboard = searched.record.table("leaderboard")
    missing = sum(not store.samples.readable(name) for name in {sample.id for sample in searched.samples})
    metadata = {
        **row_count(searched.record.table("samples")),
        "images drawn": searched.drawn,
        "images found": len({sample.id for sample in searched.samples}) - searched.drawn,
        "prompts looked at": searched.looked_at,
        "best prompt": searched.best.prompt,
        "leaderboard": markdown(
            leaderboard.select(
                ["strategy", "prompt", "negative_prompt", "guidance", "images", "products", "mean", "low", "high"]
            ).to_pylist()
        ),
        "formats": markdown(searched.record.table("formats").to_pylist()),
        "samples": _shown(store, searched),
    }
    figures = [
        check("every_image_exists", missing == 0, blocking=True, missing=missing),
        check("within_budget", searched.spent <= limits["budget"], images=searched.spent, budget=limits["budget"]),
    ]
    return result(searched.record, metadata, figures)


def _shown(store: Store, made: Searched) -> dg.MarkdownMetadataValue:
    """The plain and the best prompt's images of the same photos and seeds, next to each other."""
    shown: list[Sample] = [sample for sample in made.samples if sample.purpose == Split.DEV]
    places = [str(store.samples.path(sample.id)) for sample in shown]
    return Album(store, made.record).gallery("samples", places, [sample.prompt_name for sample in shown])
