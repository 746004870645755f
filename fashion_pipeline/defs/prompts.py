"""Stage 3, prompts: the candidates that each strategy writes for the style."""

import dagster as dg
import numpy as np
import pyarrow.compute as pc

from fashion_pipeline.core.attributes import Attribute, of_photo
from fashion_pipeline.core.features import FeatureIndex
from fashion_pipeline.core.prompts import write_all
from fashion_pipeline.core.similarity import mean_similarity
from fashion_pipeline.defs.features import clip_features
from fashion_pipeline.defs.metadata import check, checks, column_schema, markdown, row_count
from fashion_pipeline.defs.styles import OWNERS, styles
from fashion_pipeline.resources.models import Models
from fashion_pipeline.resources.storage import Storage


@dg.asset(
    partitions_def=styles,
    deps=[clip_features],
    group_name="prompts",
    kinds={"pytorch", "parquet"},
    owners=OWNERS,
    metadata=column_schema("candidates"),
    check_specs=checks(
        "prompt_candidates",
        blocking={"plain_prompt_present": "The plain prompt, which everything is compared with, is a candidate."},
        warning={"nothing_dropped": "Every prompt fits into the text encoder with all its phrases."},
    ),
)
def prompt_candidates(context: dg.AssetExecutionContext, storage: Storage, models: Models) -> dg.MaterializeResult:
    """One prompt a strategy, from the attributes of the style's search photos."""
    style = context.partition_key
    attributes = style_attributes(storage, models, style)
    candidates = write_all(storage.subject(style), attributes, models.prompt_fits())
    with models.encoder() as encoder:
        texts = encoder.embed_texts([candidate.prompt for candidate in candidates])
        photos = FeatureIndex(storage.read("features", style), "encoder", encoder.fingerprint)
    similarity = mean_similarity(texts, photos.rows(search_photos(storage, style)))
    rows = [
        {
            "id": candidate.id,
            "strategy": candidate.strategy,
            "prompt": candidate.prompt,
            "negative_prompt": candidate.negative_prompt,
            "phrases": list(candidate.phrases),
            "dropped": list(candidate.dropped),
            "parent": candidate.parent,
            "text_similarity": float(score),
        }
        for candidate, score in zip(candidates, similarity, strict=True)
    ]
    table = storage.write("candidates", style, rows)
    dropped = int(np.sum([len(candidate.dropped) for candidate in candidates]))
    return dg.MaterializeResult(
        metadata={
            **row_count(table),
            "candidates": markdown(
                [{key: row[key] for key in ("strategy", "prompt", "text_similarity")} for row in rows]
            ),
            "attributes of the style": markdown([vars(attribute) for attribute in attributes]),
        },
        check_results=[
            check("plain_prompt_present", any(c.strategy == "plain" for c in candidates), blocking=True),
            check("nothing_dropped", dropped == 0, phrases_dropped=dropped),
        ],
    )


def search_photos(storage: Storage, style: str) -> list[str]:
    """Ids of the photos that prompts may be chosen on."""
    images = storage.read("images", style)
    return [str(id_) for id_ in images.filter(pc.field("split") == "search")["id"].to_pylist()]


def style_attributes(storage: Storage, models: Models, style: str) -> list[Attribute]:
    """What is typical of the style's search photos: one attribute a facet, likeliest first."""
    allowed = set(search_photos(storage, style))
    rows = [row for row in storage.read("attributes", style).to_pylist() if row["id"] in allowed]
    return of_photo(rows, models.vocabulary())
