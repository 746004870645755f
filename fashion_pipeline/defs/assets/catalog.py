"""Stage 1, the catalog: which photos there are, in which split, and which were not taken."""

from collections import Counter

import dagster as dg

from fashion_pipeline.defs.metadata import Album, check, checks, column_schema, common, markdown, result, row_count
from fashion_pipeline.resources.steps import step
from fashion_pipeline.stages.catalog.catalog import Catalogued, catalogue
from fashion_pipeline.store.store import Store

MAX_REJECT_SHARE = 0.5
"""More rejects than this mean that the source, not a photo, is wrong."""

MAX_GROUP_SHARE = 0.1
"""A larger group of near-duplicates means that the near-duplicate rule misfires, or that one product dominates."""


@dg.asset(
    **common("catalog", "parquet", "pillow"),
    metadata=column_schema("images", "rejects"),
    check_specs=checks(
        "raw_images",
        blocking={"no_duplicate_across_splits": "No two photos of any styles that look the same lie in two splits."},
        warning={
            "no_reject_flood": "At most half of the files were rejected.",
            "no_giant_group": "No group of near-duplicates holds more than a tenth of the photos.",
        },
    ),
)
@step
def raw_images(context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]) -> dg.MaterializeResult:
    """The reference photos of a style, each with its content hash, product group and split; and the rejected files.

    **A new style**: make a folder with its name under `raw/` in the data root (`data/raw/rain-coat/`) and put 8 or more
    photos into it. With the sensor `new_photos` switched on (Automation), it becomes a partition within a minute and is
    trained once it has enough photos. Or materialise `full_pipeline` for it.

    **More photos of a style**: put them where the others lie. Rejected files are listed below with the reason.
    """
    catalogued = catalogue(store, context.partition_key, context.run.run_id, tell=context.log.warning)
    images, rejects = catalogued.images, catalogued.rejects
    metadata = {
        **row_count(images),
        "photos": Album(store, catalogued.record).gallery(
            "photos", [photo.path for photo in store.photos(catalogued.record)]
        ),
        "splits": markdown([dict(Counter(images["split"].to_pylist()))]),
        "product groups": len(catalogued.groups),
        "rejected": rejects.num_rows,
        "rejects": markdown(rejects.slice(0, 20).to_pylist()),
        "source": catalogued.source,
    }
    return result(catalogued.record, metadata, _checks(catalogued))


def _checks(made: Catalogued) -> list[dg.AssetCheckResult]:
    largest = max(made.groups.values())
    return [
        check(
            "no_duplicate_across_splits",
            not made.torn,
            blocking=True,
            pairs_in_two_splits=len(made.torn),
            first=" and ".join(made.torn[0]) if made.torn else "none",
        ),
        check("no_reject_flood", made.reject_share <= MAX_REJECT_SHARE, reject_share=made.reject_share),
        check("no_giant_group", largest <= max(2, MAX_GROUP_SHARE * made.images.num_rows), largest_group=largest),
    ]
