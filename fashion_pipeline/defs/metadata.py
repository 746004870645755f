"""What asset pages show: column schemas, tables and pictures in the forms that the Dagster UI renders."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypedDict

import dagster as dg
import pyarrow as pa
from PIL import Image

from fashion_pipeline.core import tables
from fashion_pipeline.core.catalog.listing import style_slug
from fashion_pipeline.core.evaluation.report import Cell, EvaluationReport
from fashion_pipeline.core.reports import links, pictures
from fashion_pipeline.core.rows import Purpose, Role, Split
from fashion_pipeline.defs.lineage import column_lineage
from fashion_pipeline.defs.styles import OWNERS, styles
from fashion_pipeline.stages.pages.reports import open_or_none
from fashion_pipeline.store.records import KINDS, Record
from fashion_pipeline.store.store import Store

GALLERY = 24
"""Pictures in a gallery."""

COLUMNS = 6
"""Pictures of a gallery side by side: no more have room on a laptop."""

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
    whole = {**metadata, **where, **column_lineage(KINDS[record.kind].asset)}
    return dg.MaterializeResult(metadata=whole, data_version=dg.DataVersion(record.key), check_results=list(checks))


def row_count(table: pa.Table) -> dict[str, Any]:
    """The row count under the key that the UI shows and plots."""
    return {"dagster/row_count": table.num_rows}


def markdown(rows: Sequence[Mapping[str, object]]) -> dg.MarkdownMetadataValue:
    """Rows as a table."""
    return dg.MetadataValue.md(pictures.markdown_table(rows))


def scores(report: EvaluationReport) -> dict[str, dg.MarkdownMetadataValue]:
    """The scores of a report as tables: what decides, short enough that it is visible at once, and all."""
    rows = [{"model": cell.model, "prompt": cell.prompt, **_figures(cell, "")} for cell in report.scores]
    return {"scores on dev": markdown([row for row in rows if _decides(row)]), "all scores": markdown(rows)}


def gains(report: EvaluationReport) -> dict[str, dg.MarkdownMetadataValue]:
    """The gains of a report as tables: those on dev over the original with the plain prompt, and all."""
    rows = [
        {"gain of": " ".join(gain.condition), "over": " ".join(gain.against), **_figures(gain, "+")}
        for gain in report.gains
    ]
    short = [row for row in rows if _decides(row) and row["over"] == "original plain"]
    return {"gains on dev": markdown(short), "all gains": markdown(rows)}


def _decides(row: Mapping[str, object]) -> bool:
    """Whether a row is one by encoder or judge on dev, of the style's own prompts."""
    return row["split"] == Split.DEV and row["by"] in list(Role) and row.get("prompt") != Purpose.OTHERS


def _figures(cell: Cell, sign: str) -> dict[str, object]:
    """Measure, split, mean with its interval, and n."""
    mean, low, high = (
        None if value is None else f"{value:{sign}.3f}".replace("-", "−") for value in (cell.mean, cell.low, cell.high)
    )
    interval = f"{low} to {high}" if low else "none"
    return {"by": cell.measure, "split": cell.split, "mean": mean, "95 % interval": interval, "n": cell.n}


@dataclass(frozen=True)
class Album:
    """The pictures of a record's asset page: kept in the data root, shown by the web server that serves the page."""

    store: Store
    record: Record

    def picture(self, name: str, data: bytes | None) -> dg.MarkdownMetadataValue:
        """A chart or grid under a name; "none" where there is none."""
        if data is None:
            return dg.MetadataValue.md("none")
        place = (self.record.kind, self.record.style, self.record.key)
        kept = self.store.pictures.put(*place, style_slug(name), data)
        return dg.MetadataValue.md(pictures.markdown_image(links.picture_link(*place, kept), name))

    def gallery(self, name: str, locations: Iterable[str], captions: Sequence[str] = ()) -> dg.MarkdownMetadataValue:
        """The first images as one contact sheet; those that vanished meanwhile are left out."""
        shown = _opened(locations, captions)
        if not shown:
            return dg.MetadataValue.md("none")
        shown_captions = [caption for _, caption in shown] if captions else ()
        return self.picture(
            name,
            pictures.jpeg_bytes(pictures.contact_sheet([image for image, _ in shown], shown_captions, columns=COLUMNS)),
        )

    def page(self) -> dg.MarkdownMetadataValue:
        """A link to the record's report."""
        return link("open the report", links.page_link(self.record.kind, self.record.style, self.record.key))


def link(text: str, address: str) -> dg.MarkdownMetadataValue:
    """A link to a page of the same web server."""
    return dg.MetadataValue.md(f"[{text}]({address})")


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
