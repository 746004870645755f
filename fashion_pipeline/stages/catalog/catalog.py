"""Stage 1: the catalog of a style, built one style at a time."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from fashion_pipeline.core.catalog.listing import CatalogError
from fashion_pipeline.intake.assembling import Withdrawn, build_catalog, torn_near_duplicates
from fashion_pipeline.intake.sources import listing_state, read_style
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store


@dataclass(frozen=True)
class Catalogued:
    """A catalog and what is to be said of it."""

    record: Record
    images: pa.Table
    rejects: pa.Table
    torn: list[tuple[str, str]]
    """Near-duplicates in two splits, of this style and of any."""
    source: str

    @property
    def groups(self) -> Counter[str]:
        """Product group → its photos."""
        return Counter(self.images["product_group"].to_pylist())

    @property
    def reject_share(self) -> float:
        """Rejected files as a share of all."""
        return float(self.rejects.num_rows / max(1, self.rejects.num_rows + self.images.num_rows))


def catalogue(
    store: Store,
    style: str,
    run: str = "",
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Catalogued:
    """Take in a style's photos; `tell` hears of damaged catalogs and odd colours.

    Raises CatalogError for too few photos, or none.
    """
    source = store.sources.source(style)
    listing = read_style(source, style)
    if not listing.entries:
        raise CatalogError(f"no photos of style {style!r} under {source.path}: add some, or remove the style")
    for note in listing.notes:
        tell(note)
    state = listing_state(listing.entries)
    with store.locks.one_catalog_at_a_time():
        known = store.known(style, tell)
        built = build_catalog(
            style,
            listing.entries,
            known,
            rejects=listing.rejects,
            base=source.base,
            withdrawn=_withdrawn(store),
            progress=progress,
            tell=tell,
        )
        tables = {"images": built.images, "rejects": built.rejects}
        record = store.records.add("catalog", style, tables=tables, run=run)
        store.sources.mark(style, "catalog", state)
        torn = torn_near_duplicates(replace(known, own=built.images))
    return Catalogued(record, built.images, built.rejects, torn, source.path)


def _withdrawn(store: Store) -> Withdrawn | None:
    """The photos of all styles that must not be taken in again."""
    withdrawn = store.withdrawals.all()
    return Withdrawn([photo.id for photo in withdrawn], store.withdrawals.prints()) if withdrawn else None
