"""What asset pages show: column schemas, tables and pictures in the forms that the Dagster UI renders."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from fashion_pipeline.core import pictures, tables
from fashion_pipeline.core.photos import PhotoError, open_photo


def column_schema(table: str) -> dict[str, Any]:
    """Definition metadata with the columns of a table."""
    columns = [
        dg.TableColumn(c.name, str(c.type), c.description, dg.TableColumnConstraints(nullable=c.nullable))
        for c in tables.columns(table)
    ]
    return {"dagster/column_schema": dg.TableSchema(columns)}


def row_count(table: pa.Table) -> dict[str, Any]:
    """The row count under the key that the UI plots."""
    return {"dagster/row_count": table.num_rows}


def gallery(items: Sequence[tuple[str, str]], cell: int = 64) -> dg.MarkdownMetadataValue:
    """(image location, caption) pairs as a table of pictures; photos that have vanished are named instead."""
    rows = [[_picture(location, cell), caption] for location, caption in items]
    return dg.MetadataValue.md(pictures.markdown_table(["", "caption"], rows))


def picture(png: bytes, text: str) -> dg.MarkdownMetadataValue:
    """A chart or grid."""
    return dg.MetadataValue.md(f"![{text}]({pictures.data_uri(png)})")


def check(name: str, passed: bool, blocking: bool = False, **figures: Any) -> dg.AssetCheckResult:
    """The result of a check that was declared with `specs`, with the figures it rests on."""
    severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(passed=passed, check_name=name, severity=severity, metadata=figures)


def specs(asset: str, **checks: str) -> list[dg.AssetCheckSpec]:
    """Check declarations, name=description; computed inside the asset, they cost no step of their own."""
    return [dg.AssetCheckSpec(name, asset=asset, description=text) for name, text in checks.items()]
