"""Which sources of photos there are, and the styles that each brings."""

from pathlib import Path

from fashion_pipeline.core.catalog.listing import CatalogError, Listing, SourceSpec
from fashion_pipeline.intake.objects import is_url
from fashion_pipeline.store.store import Store


def known_sources(store: Store) -> list[SourceSpec]:
    """The source of every registered style, and the folder `raw` of the data root once it exists; each once."""
    sources = {store.sources.source(style).to_json(): store.sources.source(style) for style in store.sources.styles()}
    dropped = SourceSpec(str(store.raw_folder))
    if store.raw_folder.is_dir():
        sources.setdefault(dropped.to_json(), dropped)
    return list(sources.values())


def take_in(store: Store, spec: SourceSpec, listing: Listing, *, move: bool = False) -> list[str]:
    """Register the styles of a source, but for those that somebody removed; returns them.

    A style whose old source has gone moves to the new one.
    Raises CatalogError where a style already has another source, unless it is to `move`.
    """
    wordings = {entry.style: entry.wording for entry in listing.entries}
    registered, removed = set(store.sources.styles()), store.sources.removed()
    styles = [style for style in listing.styles() if style not in removed]
    for style in styles:
        if style not in registered or move:
            continue
        other = store.sources.source(style).path
        if not _is_same(other, spec.path) and (is_url(other) or Path(other).exists()):
            raise CatalogError(
                f"style {style!r} of {spec.path} already comes from {other}: rename the style in one of them, or move "
                f"all styles there with fashion-pipeline move {spec.path}"
            )
    for style in styles:
        store.sources.register(style, wordings[style], spec)
    return styles


def _is_same(one: str, other: str) -> bool:
    """Whether two sources are one place."""
    if is_url(one) or is_url(other):
        return one.rstrip("/") == other.rstrip("/")
    return Path(one).resolve() == Path(other).resolve()
