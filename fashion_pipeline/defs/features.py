"""Stage 2, features: what encoder and judge see in each photo, and the attributes that the encoder reads off it."""

from collections import Counter

import dagster as dg
import numpy as np

from fashion_pipeline.core.attributes import answer, ensemble
from fashion_pipeline.core.features import FeatureIndex
from fashion_pipeline.defs.catalog import raw_images
from fashion_pipeline.defs.metadata import check, checks, column_schema, markdown, row_count
from fashion_pipeline.defs.studio import embed_photos
from fashion_pipeline.defs.styles import OWNERS, styles
from fashion_pipeline.resources.gpu import POOL
from fashion_pipeline.resources.models import Models
from fashion_pipeline.resources.storage import Storage


@dg.asset(
    partitions_def=styles,
    deps=[raw_images],
    group_name="features",
    kinds={"pytorch", "parquet"},
    owners=OWNERS,
    pool=POOL,
    metadata=column_schema("features", "attributes"),
    check_specs=checks(
        "clip_features",
        blocking={"unit_norm": "Every embedding has length 1."},
        warning={"embeddings_differ": "Different photos have different embeddings."},
    ),
)
def clip_features(context: dg.AssetExecutionContext, storage: Storage, models: Models) -> dg.MaterializeResult:
    """Embeddings of every photo by encoder and judge, and zero-shot attributes by the encoder."""
    style = context.partition_key
    images = storage.read("images", style)
    ids = images["id"].to_pylist()
    questions = models.vocabulary().questions()
    with models.encoder() as encoder, models.judge() as judge:
        computed = embed_photos(storage, style, images, {"encoder": encoder, "judge": judge}, context.log.info)
        texts = encoder.embed_texts([text for question in questions for text in question.texts])
        scale, fingerprint = encoder.logit_scale, encoder.fingerprint
    features = storage.read("features", style)
    embeddings = FeatureIndex(features, "encoder", fingerprint).rows(ids)
    rows = answer(ids, embeddings, questions, ensemble(texts, [len(question.texts) for question in questions]), scale)
    attributes = storage.write("attributes", style, rows)
    length_error = float(np.abs(np.linalg.norm(embeddings, axis=1) - 1).max())
    distinct = len(np.unique(embeddings.round(4), axis=0))
    return dg.MaterializeResult(
        metadata={
            **row_count(features),
            "embeddings computed": computed,
            "attributes": markdown(_most_frequent(attributes.to_pylist())),
        },
        check_results=[
            check("unit_norm", length_error < 1e-3, blocking=True, largest_error=length_error),
            check("embeddings_differ", distinct > 0.5 * len(ids), distinct=distinct, photos=len(ids)),
        ],
    )


def _most_frequent(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """For each facet its three most frequent values."""
    best: dict[tuple[object, object], dict[str, object]] = {}
    for row in rows:
        key = (row["id"], row["facet"])
        if key not in best or float(str(row["probability"])) > float(str(best[key]["probability"])):
            best[key] = row
    counts = Counter((str(row["facet"]), str(row["value"])) for row in best.values())
    result: list[dict[str, object]] = []
    for facet in dict.fromkeys(facet for facet, _ in counts):
        common = [(value, n) for (f, value), n in counts.most_common() if f == facet][:3]
        result.append({"facet": facet, "most frequent": ", ".join(f"{value} ({n})" for value, n in common)})
    return result
