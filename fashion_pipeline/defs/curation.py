"""Stage 6, curation: the images that the model is trained on, their captions, and why they were kept."""

from typing import Any

import dagster as dg
from pydantic import Field

from fashion_pipeline.core import curation
from fashion_pipeline.core.attributes import of_photo
from fashion_pipeline.core.features import FeatureIndex
from fashion_pipeline.core.prompts import write
from fashion_pipeline.core.similarity import typicality
from fashion_pipeline.defs.metadata import check, checks, column_schema, gallery, markdown, row_count
from fashion_pipeline.defs.similarity import prompt_report, similarity_table, style_anchors
from fashion_pipeline.defs.styles import OWNERS, styles
from fashion_pipeline.resources.models import Models
from fashion_pipeline.resources.storage import Storage

DEFAULT_FORMAT = "all_attributes"
"""Strategy that writes the captions of a style whose prompts were never searched."""


class CurationConfig(dg.Config):
    """What earns a place in the training set."""

    keep: float = Field(default=0.9, gt=0, le=1, description="Share of the photos kept; the least typical go first.")
    sample_share: float = Field(
        default=0.1, ge=0, le=1, description="Generated samples as a share of the photos kept, at most; 0 for none."
    )


@dg.asset(
    partitions_def=styles,
    deps=[similarity_table, prompt_report],
    group_name="curation",
    kinds={"duckdb", "parquet"},
    owners=OWNERS,
    metadata=column_schema("training_pairs"),
    check_specs=checks(
        "curated_subset",
        blocking={
            "trains_on_search_only": "No photo of dev or test, and none of their near-duplicates, is trained on."
        },
        warning={"captions_vary": "The captions are not all the same."},
    ),
)
def curated_subset(
    context: dg.AssetExecutionContext, config: CurationConfig, storage: Storage, models: Models
) -> dg.MaterializeResult:
    """The training pairs that earned their place, and a random control of equal size."""
    style = context.partition_key
    with models.encoder() as encoder:
        fingerprint = encoder.fingerprint
    strategy = caption_format(storage, style)
    references = _references(storage, models, style, fingerprint, strategy)
    samples, threshold = _samples(storage, style, fingerprint)
    rows = curation.curate(references, samples, keep=config.keep, sample_share=config.sample_share, threshold=threshold)
    table = storage.write("training_pairs", style, rows)
    kept = [row for row in rows if row["kept"]]
    split_of = {row["id"]: row["split"] for row in storage.read("images", style).select(["id", "split"]).to_pylist()}
    outside = sum(split_of.get(str(row["id"]), "search") != "search" for row in rows)
    captions = {str(row["caption"]) for row in kept}
    return dg.MaterializeResult(
        metadata={
            **row_count(table),
            "caption format": strategy,
            "photos": len({row["id"] for row in kept if row["origin"] == "reference"}),
            "samples": len({row["id"] for row in kept if row["origin"] == "sample"}),
            "least similarity of a sample": threshold,
            "pairs": gallery([str(row["path"]) for row in kept[::2]], [str(row["caption"]) for row in kept[::2]]),
            "captions": markdown(
                [{key: row[key] for key in ("caption", "origin", "score", "why")} for row in kept[:12]]
            ),
        },
        check_results=[
            check("trains_on_search_only", outside == 0, blocking=True, pairs_outside=outside),
            check("captions_vary", len(captions) > 2, distinct=len(captions)),
        ],
    )


def caption_format(storage: Storage, style: str) -> str:
    """The strategy that did best in the style's search among those that name attributes, or the default one.

    The plain prompt is no format: captions that are all alike invite learning the photos by heart.
    """
    ranked = [str(row["strategy"]) for row in storage.read("leaderboard", style).to_pylist()]
    return next((strategy for strategy in ranked if strategy != "plain"), DEFAULT_FORMAT)


def photo_captions(storage: Storage, models: Models, style: str, strategy: str) -> dict[str, tuple[str, ...]]:
    """Photo → its captions, by the strategy from the photo's own attributes."""
    subject, vocabulary, fits = storage.subject(style), models.vocabulary(), models.prompt_fits()
    plain = write("plain", subject, [], fits).prompt
    answers: dict[str, list[dict[str, Any]]] = {}
    for row in storage.read("attributes", style).to_pylist():
        answers.setdefault(row["id"], []).append(row)
    return {
        row["id"]: curation.captions(
            row["caption"] if row["caption"] and fits(row["caption"]) else None,
            write(strategy, subject, of_photo(answers[row["id"]], vocabulary), fits).prompt,
            plain,
        )
        for row in storage.read("images", style).select(["id", "caption"]).to_pylist()
    }


def _references(storage: Storage, models: Models, style: str, model: str, strategy: str) -> list[curation.Item]:
    """The style's search photos with their captions and how typical they are."""
    rows = [row for row in storage.read("images", style).to_pylist() if row["split"] == "search"]
    embeddings = FeatureIndex(storage.read("features", style), "encoder", model).rows([row["id"] for row in rows])
    scores = typicality(embeddings, [row["product_group"] for row in rows])
    captions = photo_captions(storage, models, style, strategy)
    return [
        curation.Item(row["id"], "reference", row["path"], captions[row["id"]], float(score))
        for row, score in zip(rows, scores, strict=True)
    ]


def _samples(storage: Storage, style: str, model: str) -> tuple[list[curation.Item], float]:
    """The samples of the search with their similarity, and the mean similarity of two real photos of the style.

    The threshold is infinite, and no sample passes, where there is nothing to anchor it on.
    """
    anchors = style_anchors(storage, style, "encoder", model)
    cosines = {
        row["sample"]: float(row["cosine"])
        for row in storage.read("similarities", style).to_pylist()
        if row["role"] == "encoder" and row["model"] == model
    }
    items = {
        row["id"]: curation.Item(
            row["id"], "sample", str(storage.sample_path(row["id"])), (row["prompt"],), cosines[row["id"]]
        )
        for row in storage.read("samples", style).to_pylist()
        if row["purpose"] == "search" and row["id"] in cosines
    }
    return list(items.values()), anchors.within if anchors else float("inf")
