"""Stage 6, curation: the images that the model is trained on, their captions, and why they were kept."""

import dagster as dg

from fashion_pipeline.core.rows import Origin
from fashion_pipeline.defs.assets.features import clip_features
from fashion_pipeline.defs.assets.similarity import prompt_report, similarity_table
from fashion_pipeline.defs.configuration import knob, settled
from fashion_pipeline.defs.metadata import Album, check, checks, column_schema, common, markdown, result, row_count
from fashion_pipeline.resources.steps import step
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.training.curation import curate_pairs, training_images
from fashion_pipeline.store.store import Store


class CurationConfig(dg.Config):
    """What earns a place in the training set."""

    keep: float | None = knob(0.9, "Share of the photos kept; the least typical go first.", gt=0, le=1)
    sample_share: float | None = knob(
        0.1, "Generated samples as a share of the photos kept, at most; 0 for none.", ge=0, le=1
    )


@dg.asset(
    **common("training", "duckdb", "parquet"),
    deps=[clip_features, similarity_table, prompt_report],
    metadata=column_schema("training_pairs"),
    check_specs=checks(
        "curated_subset",
        blocking={
            "trains_on_search_only": "There are pairs, and no photo of dev or test, nor any photo of any style that "
            "looks like one, is among them."
        },
        warning={"captions_vary": "The captions are not all the same."},
    ),
)
@step
def curated_subset(
    context: dg.AssetExecutionContext,
    config: CurationConfig,
    store: dg.ResourceParam[Store],
    models: dg.ResourceParam[Models],
) -> dg.MaterializeResult:
    """The training pairs that earned their place, and a random control of equal size."""
    chosen = settled(config, store, context.partition_key, "curated_subset")
    curated = curate_pairs(
        store, models, context.partition_key, **chosen, tell=context.log.warning, run=context.run.run_id
    )
    places = training_images(store, store.records.input(curated.record, "catalog"), curated.kept)
    captions, shown = {pair.caption for pair in curated.kept}, curated.kept[::2]
    metadata = {
        **row_count(curated.record.table("training_pairs")),
        "caption format": curated.strategy,
        "photos": curated.count(Origin.REFERENCE),
        "captions cut": len(curated.cut),
        "samples": curated.count(Origin.SAMPLE),
        "least similarity of a sample": curated.threshold,
        "pairs": Album(store, curated.record).gallery(
            "pairs", [places[pair.id] for pair in shown], [pair.caption for pair in shown]
        ),
        "captions": markdown(
            [{k: vars(pair)[k] for k in ("caption", "origin", "score", "why")} for pair in curated.kept[:12]]
        ),
    }
    clean = bool(curated.kept) and not curated.outside
    figures = [
        check(
            "trains_on_search_only", clean, blocking=True, pairs=len(curated.kept), photos_outside=len(curated.outside)
        ),
        check("captions_vary", len(captions) > 2, distinct=len(captions)),
    ]
    return result(curated.record, metadata, figures)
