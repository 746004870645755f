"""What asset pages show: column schemas, tables and pictures in the forms that the Dagster UI renders."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, TypedDict

import dagster as dg
import pyarrow as pa
from PIL import Image

from fashion_pipeline.core import tables
from fashion_pipeline.core.reports import pictures
from fashion_pipeline.defs.styles import OWNERS, styles
from fashion_pipeline.stages.reports import open_or_none
from fashion_pipeline.store.records import Record

GALLERY = 24
"""Pictures in a gallery."""

CODE_VERSION = version("fashion-pipeline")


class Common(TypedDict):
    """What every asset of a style declares."""

    partitions_def: dg.PartitionsDefinition[str]
    group_name: str
    kinds: set[str]
    owners: list[str]
    code_version: str


def common(group: str, *kinds: str) -> Common:
    """What every asset of a style declares."""
    return Common(partitions_def=styles, group_name=group, kinds=set(kinds), owners=OWNERS, code_version=CODE_VERSION)


def column_schema(*names: str) -> dict[str, Any]:
    """Definition metadata with the columns of the tables that an asset writes; the first one as the asset's schema."""
    return {"dagster/column_schema": _schema(names[0])} | {f"columns of {name}": _schema(name) for name in names[1:]}


def result(
    record: Record, metadata: Mapping[str, Any], checks: Sequence[dg.AssetCheckResult] = ()
) -> "dg.MaterializeResult[Any]":
    """What an asset reports: its record is its data version, so equal content is the same data."""
    where: dict[str, Any] = {"record": record.key, "record folder": dg.MetadataValue.path(str(record.folder))}
    return dg.MaterializeResult(
        metadata={**metadata, **where}, data_version=dg.DataVersion(record.key), check_results=list(checks)
    )


def row_count(table: pa.Table) -> dict[str, Any]:
    """The row count under the key that the UI shows and plots."""
    return {"dagster/row_count": table.num_rows}


def markdown(rows: Sequence[Mapping[str, object]]) -> dg.MarkdownMetadataValue:
    """Rows as a table."""
    return dg.MetadataValue.md(pictures.markdown_table(rows))


def gains(report: Mapping[str, Any]) -> dg.MarkdownMetadataValue:
    """The gains of a report as a table."""
    return markdown([{**gain, "against": " ".join(gain["against"].values())} for gain in report["gains"]])


def picture(data: bytes | None, description: str) -> dg.MarkdownMetadataValue:
    """A chart or grid."""
    if data is None:
        return dg.MetadataValue.md("none")
    return dg.MetadataValue.md(pictures.markdown_image(pictures.data_uri(data), description))


def gallery(locations: Iterable[str], captions: Sequence[str] = ()) -> dg.MarkdownMetadataValue:
    """The first images as one contact sheet; those that vanished meanwhile are left out."""
    shown = _opened(locations, captions)
    if not shown:
        return dg.MetadataValue.md("none")
    sheet = pictures.contact_sheet([image for image, _ in shown], [caption for _, caption in shown] if captions else ())
    return picture(pictures.jpeg_bytes(sheet), f"{len(shown)} images")


def check(name: str, passed: bool, *, blocking: bool = False, **figures: Any) -> dg.AssetCheckResult:
    """The result of a declared check, with the figures it rests on; only a failed blocking check stops a run."""
    severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(passed=bool(passed), check_name=name, severity=severity, metadata=figures)


def checks(asset: str, blocking: Mapping[str, str], warning: Mapping[str, str]) -> list[dg.AssetCheckSpec]:
    """Declarations of checks that are computed inside the asset, which costs no step of their own: name, property."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # without partitions one style's result hides another's
        return [
            dg.AssetCheckSpec(name, asset=asset, description=text, blocking=group is blocking, partitions_def=styles)
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


def _opened(locations: Iterable[str], captions: Sequence[str]) -> list[tuple[Image.Image, str]]:
    """The first images that can be opened; no more than are shown are opened."""
    shown: list[tuple[Image.Image, str]] = []
    for position, location in enumerate(locations):
        image = open_or_none(location) if len(shown) < GALLERY else None
        if image is not None:
            shown.append((image, captions[position] if captions else ""))
    return shown
