"""Photos, and catalogs of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from fashion_pipeline.core.catalog.fingerprints import Gallery
from fashion_pipeline.core.catalog.listing import (
    Listing,
    SourceSpec,
)
from fashion_pipeline.core.catalog.splits import split_of
from fashion_pipeline.core.tables import schema
from fashion_pipeline.intake.assembling import HOMES, Catalog, Known, build_catalog, known_prints
from fashion_pipeline.intake.sources import read_source, read_style

NO_IMAGES = schema("images").empty_table()
HEADER = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage"


def photo(seed: int) -> Image.Image:
    """A smooth pattern that differs much from seed to seed."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)


def brighter(image: Image.Image) -> Image.Image:
    """Nearly the same photo."""
    return image.point(lambda value: min(255, value + 4))


def save_photos(folder: Path, seeds: range, suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        photo(seed).save(folder / f"{seed:02}.{suffix}")


def listed(root: Path | str, **options: object) -> Listing:
    """All that a source lists; each style listed by itself is the same."""
    spec = SourceSpec(str(root), **options)  # type: ignore[arg-type]
    listing = read_source(spec)
    for style in [*listing.styles(), "unknown"]:
        assert read_style(spec, style) == listing.of(style)
    return listing


def known(own: pa.Table = NO_IMAGES, others: pa.Table = NO_IMAGES) -> Known:
    """What is catalogued, of a style and of another one."""
    gallery = Gallery([lambda: known_prints(others)] if others.num_rows else [])
    return Known(own, others.select(list(HOMES)), gallery)


NOTHING_KNOWN = known()


def built(root: Path, style: str, known: Known = NOTHING_KNOWN) -> Catalog:
    part = listed(root).of(style)
    return build_catalog(style, part.entries, known, rejects=part.rejects, base=str(root))


def reasons(listing: Listing) -> dict[str, str]:
    return {Path(reject.path).name: reject.reason for reject in listing.rejects}


def key_in(split: str) -> str:
    return next(str(number) for number in range(1000) if split_of(str(number)) == split)


def product_row(key: str, usage: str = "Ethnic", colour: str = "Navy Blue") -> str:
    return f"{key},Women,Apparel,Topwear,Kurtas,{colour},Fall,2011,{usage}"
