"""Stage 2, features: what encoder and judge see in each photo, and the attributes that the encoder reads off it."""

from collections import Counter
from dataclasses import asdict

import dagster as dg

from fashion_pipeline.core.features.shuffling import SEEN
from fashion_pipeline.defs.assets.catalog import raw_images
from fashion_pipeline.defs.conditions import FOLLOWS
from fashion_pipeline.defs.metadata import check, checks, column_schema, common, markdown, result
from fashion_pipeline.resources.steps import step
from fashion_pipeline.running.runs import POOL
from fashion_pipeline.stages.catalog.features import describe
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.store import Store


@dg.asset(
    **common("catalog", "pytorch", "parquet"),
    automation_condition=FOLLOWS,
    deps=[raw_images],
    pool=POOL,
    metadata=column_schema("features", "attributes"),
    check_specs=checks(
        "clip_features",
        blocking={"unit_norm": "Every embedding of encoder and judge has length 1."},
        warning={
            "embeddings_differ": "Different photos have different embeddings.",
            "garments_seen": "To encoder and judge the photos are more like each other than their shuffled pieces are.",
        },
    ),
)
@step
def clip_features(
    context: dg.AssetExecutionContext, store: dg.ResourceParam[Store], models: dg.ResourceParam[Models]
) -> dg.MaterializeResult:
    """Embeddings of every photo by encoder and judge, and zero-shot attributes by the encoder."""
    described = describe(store, models, context.partition_key, context.log.info, context.run.run_id)
    metadata = {
        "dagster/row_count": 2 * described.photos,
        "embeddings computed": described.computed,
        "calibration": markdown([{"facet": facet, **asdict(each)} for facet, each in described.calibrations.items()])
        if described.calibrations
        else "none: fewer than 50 search photos came with an answer that the vocabulary knows",
        "attributes": markdown(_most_frequent(described.attributes.to_pylist())),
    }
    figures = [
        check("unit_norm", described.length_error < 1e-3, blocking=True, largest_error=described.length_error),
        check(
            "embeddings_differ",
            described.distinct > 0.5 * described.photos,
            distinct=described.distinct,
            photos=described.photos,
        ),
        check(
            "garments_seen",
            all(each.believed for each in described.sight.values()),
            shares=", ".join(f"{role} {each.share:.0%} of {each.n} photos" for role, each in described.sight.items()),
            needed=f"{SEEN:.0%}",
        ),
    ]
    return result(described.record, metadata, figures)


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
