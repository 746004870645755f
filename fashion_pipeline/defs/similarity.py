"""Stage 5, similarity: how close every sample came to its photo, and what the best prompt gained."""

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fashion_pipeline.core.features import FeatureIndex
from fashion_pipeline.core.report import summary
from fashion_pipeline.core.scores import score_rows, similarity_rows
from fashion_pipeline.core.similarity import Anchors, anchors
from fashion_pipeline.core.tables import rows_to_table
from fashion_pipeline.defs.metadata import check, checks, column_schema, markdown, row_count
from fashion_pipeline.defs.reporting import write_page
from fashion_pipeline.defs.samples import generated_samples
from fashion_pipeline.defs.studio import embed_photos, embed_samples, index
from fashion_pipeline.defs.styles import OWNERS, styles
from fashion_pipeline.resources.gpu import POOL
from fashion_pipeline.resources.models import Models
from fashion_pipeline.resources.storage import Storage

PROMPT_REPORT = "prompt_report.json"


@dg.asset(
    partitions_def=styles,
    deps=[generated_samples],
    group_name="similarity",
    kinds={"pytorch", "parquet"},
    owners=OWNERS,
    pool=POOL,
    metadata=column_schema("similarities", "sample_features"),
    check_specs=checks(
        "similarity_table",
        blocking={"cosines_in_range": "Every cosine lies between -1 and 1."},
        warning={"cosines_differ": "The cosines are not all alike."},
    ),
)
def similarity_table(context: dg.AssetExecutionContext, storage: Storage, models: Models) -> dg.MaterializeResult:
    """The cosine of every sample to its photo, by the encoder that chose and by the judge that did not."""
    style = context.partition_key
    samples = storage.read("samples", style)
    rows = measure(context, storage, models, style, samples)
    table = storage.write("similarities", style, rows)
    cosines = table["cosine"].to_numpy()
    return dg.MaterializeResult(
        metadata={
            **row_count(table),
            "mean cosine by encoder": float(np.mean([row["cosine"] for row in rows if row["role"] == "encoder"])),
            "mean cosine by judge": float(np.mean([row["cosine"] for row in rows if row["role"] == "judge"])),
        },
        check_results=[
            check(
                "cosines_in_range",
                bool((np.abs(cosines) <= 1).all()),
                blocking=True,
                largest=float(np.abs(cosines).max()),
            ),
            check("cosines_differ", float(cosines.std()) > 1e-4, standard_deviation=float(cosines.std())),
        ],
    )


@dg.asset(partitions_def=styles, deps=[similarity_table], group_name="similarity", kinds={"json"}, owners=OWNERS)
def prompt_report(context: dg.AssetExecutionContext, storage: Storage, models: Models) -> dg.MaterializeResult:
    """The best prompt, the strategy that wrote it, and what it gains over the plain one on photos never searched on."""
    style = context.partition_key
    best = storage.read("leaderboard", style).slice(0, 1).to_pylist()[0]
    rows = score_rows(storage.read("samples", style).to_pylist(), storage.read("similarities", style).to_pylist())
    report = summary(
        rows_to_table("scores", rows),
        style=style,
        profile=models.read().name,
        optimized_prompt=best["prompt"],
        strategy=best["strategy"],
        verdict=None,
    )
    storage.write_report(style, PROMPT_REPORT, report)
    page = write_page(storage, models, style, run_id=context.run.run_id)
    return dg.MaterializeResult(
        metadata={
            "optimized prompt": best["prompt"],
            "strategy": best["strategy"],
            "similarity score": report["similarity_score"],
            "scores": markdown(report["scores"]),
            "gains": markdown(report["gains"]),
            "report": dg.MetadataValue.path(str(page)),
        }
    )


def measure(
    context: dg.AssetExecutionContext, storage: Storage, models: Models, style: str, samples: pa.Table
) -> list[dict[str, object]]:
    """Rows of table `similarities` for samples, by encoder and judge."""
    rows: list[dict[str, object]] = []
    with models.encoder() as encoder, models.judge() as judge:
        encoders = {"encoder": encoder, "judge": judge}
        embed_photos(storage, style, storage.read("images", style), encoders, context.log.info)
        embed_samples(storage, style, samples["id"].to_pylist(), encoders, context.log.info)
        for role, model in encoders.items():
            photos = index(storage, "features", style, role, model.fingerprint)
            drawn = index(storage, "sample_features", style, role, model.fingerprint)
            rows += similarity_rows(
                samples.to_pylist(), photos, drawn, style_anchors(storage, style, role, model.fingerprint)
            )
    return rows


def style_anchors(storage: Storage, style: str, role: str, model: str) -> Anchors | None:
    """What 0 and 1 mean for this style: from its own search photos and those of all other styles."""
    images = storage.read_all("images").filter(pc.field("split") == "search")
    own = images.filter(pc.field("style") == style)
    photos = FeatureIndex(storage.read("features", style), role, model)
    others = [
        FeatureIndex(storage.read("features", other), role, model).known(
            images.filter(pc.field("style") == other)["id"].to_pylist()
        )
        for other in storage.written_styles("features")
        if other != style
    ]
    filled = [rows for rows in others if len(rows)]
    elsewhere = np.concatenate(filled) if filled else np.empty((0, 0), np.float32)
    return anchors(photos.rows(own["id"].to_pylist()), own["product_group"].to_pylist(), elsewhere)
