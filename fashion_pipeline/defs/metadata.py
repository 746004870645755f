"""What asset pages show: column schemas, tables and pictures in the forms that the Dagster UI renders."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa
from PIL import Image

from fashion_pipeline.core import pictures, tables
from fashion_pipeline.core.photos import PhotoError, open_photo

GALLERY = 24
"""Pictures in a gallery."""


def column_schema(*names: str) -> dict[str, Any]:
    """Definition metadata with the columns of the tables that an asset writes; the first one as the asset's schema."""
    return {"dagster/column_schema": _schema(names[0])} | {f"columns of {name}": _schema(name) for name in names[1:]}


def row_count(table: pa.Table) -> dict[str, Any]:
    """The row count under the key that the UI shows and plots."""
    return {"dagster/row_count": table.num_rows}


def markdown(rows: Sequence[Mapping[str, object]]) -> dg.MarkdownMetadataValue:
    """Rows as a table."""
    return dg.MetadataValue.md(pictures.markdown_table(rows))


def picture(data: bytes, description: str) -> dg.MarkdownMetadataValue:
    """A chart or grid."""
    return dg.MetadataValue.md(pictures.markdown_image(pictures.data_uri(data), description))


def gallery(locations: Iterable[str], captions: Sequence[str] = ()) -> dg.MarkdownMetadataValue:
    """The first images as one contact sheet; those that vanished meanwhile are left out."""
    shown = [(image, caption) for image, caption in _opened(locations, captions) if image][:GALLERY]
    if not shown:
        return dg.MetadataValue.md("none")
    sheet = pictures.contact_sheet([image for image, _ in shown], [caption for _, caption in shown] if captions else ())
    return picture(pictures.jpeg_bytes(sheet), f"{len(shown)} images")


def open_or_none(location: str) -> Image.Image | None:
    """A photo, or None if it cannot be read any more."""
    try:
        return open_photo(location, max_side=256)
    except PhotoError:
        return None


def check(name: str, passed: bool, *, blocking: bool = False, **figures: Any) -> dg.AssetCheckResult:
    """The result of a declared check, with the figures it rests on; only a failed blocking check stops a run."""
    severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(passed=bool(passed), check_name=name, severity=severity, metadata=figures)


def checks(asset: str, blocking: Mapping[str, str], warning: Mapping[str, str]) -> list[dg.AssetCheckSpec]:
    """Declarations of checks that are computed inside the asset, which costs no step of their own: name, property."""
    return [
        dg.AssetCheckSpec(name, asset=asset, description=text, blocking=group is blocking)
        for group in (blocking, warning)
        for name, text in group.items()
    ]


def _schema(table: str) -> dg.TableSchema:
    return dg.TableSchema(
        [
            dg.TableColumn(c.name, str(c.type), c.description, dg.TableColumnConstraints(nullable=c.nullable))
            for c in tables.columns(table)
        ]
    )


def _opened(locations: Iterable[str], captions: Sequence[str]) -> Iterable[tuple[Image.Image | None, str]]:
    for position, location in enumerate(locations):
        yield open_or_none(location), captions[position] if captions else ""
