"""Stage 1, the catalog: which photos there are, in which split, and which were not taken."""

import hashlib
from collections import Counter

import dagster as dg

from fashion_pipeline.core.catalog import build_catalog
from fashion_pipeline.core.listing import CatalogError
from fashion_pipeline.core.sources import read_source
from fashion_pipeline.defs.metadata import check, checks, column_schema, gallery, markdown, row_count
from fashion_pipeline.defs.styles import OWNERS, styles
from fashion_pipeline.resources.storage import Storage

MAX_REJECT_SHARE = 0.5
"""More rejects than this mean that the source, not a photo, is wrong."""

MAX_GROUP_SHARE = 0.1
"""A larger group of near-duplicates means that the near-duplicate rule misfires, or that one product dominates."""


@dg.asset(
    partitions_def=styles,
    group_name="catalog",
    kinds={"parquet", "pillow"},
    owners=OWNERS,
    metadata=column_schema("images", "rejects"),
    check_specs=checks(
        "raw_images",
        blocking={"no_duplicate_across_splits": "No product group lies in two splits."},
        warning={
            "no_reject_flood": "At most half of the files were rejected.",
            "no_giant_group": "No group of near-duplicates holds more than a tenth of the photos.",
        },
    ),
)
def raw_images(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult:
    """The reference photos of a style, each with its content hash, product group and split; and the rejected files."""
    style = context.partition_key
    source = storage.source(style)
    listing = read_source(source).of(style)
    if not listing.entries:
        raise CatalogError(f"no photos of style {style!r} under {source.path}: add some, or remove the style")
    catalog = build_catalog(
        style, listing.entries, storage.read_all("images"), rejects=listing.rejects, root=source.path
    )
    images = storage.write("images", style, catalog.images)
    rejects = storage.write("rejects", style, catalog.rejects)
    groups = Counter(images["product_group"].to_pylist())
    others = storage.read_all("images").select(["product_group", "split"]).to_pylist()
    splits_of_group = {row["product_group"]: set[str]() for row in others}
    for row in others:
        splits_of_group[row["product_group"]].add(row["split"])
    torn = sum(len(splits) > 1 for splits in splits_of_group.values())
    reject_share = rejects.num_rows / max(1, rejects.num_rows + images.num_rows)
    largest = max(groups.values())
    return dg.MaterializeResult(
        metadata={
            **row_count(images),
            "photos": gallery(images["path"].to_pylist()),
            "splits": markdown([dict(Counter(images["split"].to_pylist()))]),
            "product groups": len(groups),
            "rejected": rejects.num_rows,
            "rejects": markdown(rejects.slice(0, 20).to_pylist()),
            "source": source.path,
        },
        data_version=dg.DataVersion(_data_version(images["id"].to_pylist())),
        check_results=[
            check("no_duplicate_across_splits", torn == 0, blocking=True, groups_in_two_splits=torn),
            check("no_reject_flood", reject_share <= MAX_REJECT_SHARE, reject_share=reject_share),
            check("no_giant_group", largest <= max(2, MAX_GROUP_SHARE * images.num_rows), largest_group=largest),
        ],
    )


def _data_version(ids: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]
