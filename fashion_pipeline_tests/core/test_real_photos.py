"""The product photos as they are; set FASHION_PRODUCT_PHOTOS to their folder to run these."""

import os
from collections import Counter

import pytest

from fashion_pipeline.core.catalog.listing import Listing, SourceSpec
from fashion_pipeline.intake.assembling import build_catalog
from fashion_pipeline.intake.sources import read_source
from fashion_pipeline_tests.intake.planting import NOTHING_KNOWN

FOLDER = os.environ.get("FASHION_PRODUCT_PHOTOS", "")

pytestmark = pytest.mark.skipif(not FOLDER, reason="FASHION_PRODUCT_PHOTOS names no folder")


@pytest.fixture(scope="module")
def listing() -> Listing:
    return read_source(SourceSpec(FOLDER))


def test_nearly_all_rows_are_taken_and_the_others_only_lack_a_style(listing: Listing) -> None:
    assert {"casual", "ethnic", "formal", "sports"} <= set(listing.styles())
    assert len(listing.rejects) < 0.01 * len(listing.entries)
    assert all("'NA'" in reject.reason for reject in listing.rejects)


def test_every_real_photo_opens_and_copies_stay_few_and_in_one_split(listing: Listing) -> None:
    entries = listing.of("formal").entries[:300]
    catalog = build_catalog("formal", entries, NOTHING_KNOWN)
    assert all("same file" in row["reason"] for row in catalog.rejects.to_pylist())
    assert len(catalog.images) > 0.95 * len(entries)
    groups = Counter(catalog.images["product_group"].to_pylist())
    assert max(groups.values()) <= 5
    home = {(row["product_group"], row["split"]) for row in catalog.images.to_pylist()}
    assert len(home) == len(groups)
