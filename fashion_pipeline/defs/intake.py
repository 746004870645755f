"""Which sources of photos there are, and the styles that each brings."""

from pathlib import Path

from fashion_pipeline.core.listing import CatalogError, Listing, SourceSpec
from fashion_pipeline.resources.storage import Storage


def known_sources(storage: Storage) -> list[SourceSpec]:
    """The source of every registered style, and the folder `raw` of the data root once it exists; each once."""
    found = {storage.source(style).to_json(): storage.source(style) for style in storage.registered_styles()}
    dropped = SourceSpec(str(Path(storage.root) / "raw"))
    if Path(dropped.path).is_dir():
        found.setdefault(dropped.to_json(), dropped)
    return list(found.values())


def take_in(storage: Storage, spec: SourceSpec, listing: Listing) -> list[str]:
    """Register the styles of a source; returns them. Raises CatalogError where a style already has another source."""
    wordings = {entry.style: entry.wording for entry in listing.entries}
    registered = set(storage.registered_styles())
    for style in listing.styles():
        if style in registered and (other := storage.source(style)) != spec:
            raise CatalogError(
                f"style {style!r} of {spec.path} already comes from {other.path}: rename the style in one of them, "
                f"or delete {storage.registration_path(style)} to move it"
            )
        storage.register(style, wordings[style], spec)
    return listing.styles()
