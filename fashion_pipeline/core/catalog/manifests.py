"""CSV and Parquet manifests: one row a photo, with its style, product key, attributes and caption."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fashion_pipeline.core.catalog.listing import (
    MISSING,
    PRODUCT_PHOTOS,
    CatalogError,
    ColumnMapping,
    Entry,
    Listing,
    Reject,
    SourceSpec,
    style_slug,
    worded,
)
from fashion_pipeline.core.objects import is_url

_FACETS = ("garment", "colour", "pattern", "material", "fit", "mood", "audience", "season", "usage")


@dataclass(frozen=True)
class _Row:
    number: int
    values: dict[str, str]
    fault: str = ""


Locate = Callable[[str], str]
"""The path of a photo as a manifest names it → its location. Raises CatalogError."""


def read_manifest(manifest: Path, spec: SourceSpec, style: str = "", locate: Locate | None = None) -> Listing:
    """The photos that a manifest lists, of all styles or one. Raises CatalogError where it cannot be used.

    Without `locate` they are files below the manifest's folder. The spec's path is what messages call it.
    """
    read = _read_parquet if manifest.suffix.lower() == ".parquet" else _read_csv
    header, rows = read(manifest)
    mapping = spec.columns or _recognised(header, manifest)
    _check_columns(mapping, header, manifest)
    template = spec.style_name or ("{style} wear" if mapping == PRODUCT_PHOTOS else "{style}")
    listing = Listing([], [])
    locate = locate or partial(_inside, manifest.parent, manifest.parent.resolve())
    for row in rows:
        taken = _taken(row, mapping, spec.path if is_url(spec.path) else str(manifest), locate, template)
        if style and taken.style != style:
            continue
        if isinstance(taken, Entry):
            listing.entries.append(taken)
        else:
            listing.rejects.append(taken)
    return listing


def _taken(row: _Row, mapping: ColumnMapping, manifest: str, locate: Locate, template: str) -> Entry | Reject:
    """The entry of a row, or why there is none."""
    where = f"{manifest}:{row.number}"
    style = ""
    try:
        if row.fault:
            raise CatalogError(row.fault)
        name = row.values[mapping.style]
        style = style_slug(name)
        location = locate(_path_of(row.values, mapping))
    except CatalogError as error:
        return Reject(where, str(error), style)
    return Entry(
        style=style,
        style_name=name,
        wording=worded(template, name),
        key=_value(row.values, mapping.id) or "",
        location=location,
        attributes={f: v for f, column in mapping.attributes.items() if (v := _value(row.values, column))},
        caption=_value(row.values, mapping.caption),
    )


def _path_of(values: Mapping[str, str], mapping: ColumnMapping) -> str:
    for column in mapping.path_columns():
        if not values[column]:
            raise CatalogError(f"no value in column {column!r}, which names the photo: add it, or remove the row")
    return mapping.path_in(values)


def _inside(folder: Path, root: Path, relative: str) -> str:
    """The photo's path; refused if it leads out of the manifest's folder, be it by a symbolic link."""
    path = Path(relative)
    try:
        outside = path.is_absolute() or ".." in path.parts or not (folder / path).resolve().is_relative_to(root)
        missing = not outside and not (folder / path).is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise CatalogError(f"{relative!r} is not a usable path ({error}): correct the row") from error
    if outside:
        raise CatalogError(f"{relative!r} lies outside {folder}: move the photo below it and correct the row")
    if missing:
        raise CatalogError(f"there is no file {relative!r} in {folder}: add it, or remove the row")
    return str(folder / path)


def _value(values: Mapping[str, str], column: str) -> str | None:
    value = values[column] if column else ""
    return None if value.casefold() in MISSING else value


def _recognised(header: list[str], manifest: Path) -> ColumnMapping:
    """The mapping of the product photos, or of a manifest whose columns are called `style` and `path`."""
    if {"style", "path"} <= set(header):
        optional = {name: name if name in header else "" for name in ("id", "caption")}
        attributes = {facet: facet for facet in _FACETS if facet in header}
        return ColumnMapping(style="style", path="path", attributes=attributes, **optional)
    if "articleType" in header or {"id", "usage"} <= set(header):
        return PRODUCT_PHOTOS
    raise CatalogError(
        f"{manifest} has the columns {', '.join(header)}: call those of the style and of the photo's path "
        "`style` and `path`, or name them in a column mapping"
    )


def _check_columns(mapping: ColumnMapping, header: list[str], manifest: Path) -> None:
    needed = [mapping.style, mapping.id, mapping.caption, *mapping.path_columns(), *mapping.attributes.values()]
    missing = sorted({column for column in needed if column and column not in header})
    if missing:
        raise CatalogError(
            f"{manifest} has no column {', '.join(map(repr, missing))}; it has {', '.join(header)}: "
            "add the column, or name the right one in the column mapping"
        )


def _read_csv(manifest: Path) -> tuple[list[str], Iterator[_Row]]:
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CatalogError(f"{manifest} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    except OSError as error:
        raise CatalogError(f"{manifest} cannot be read ({error.strerror}): check that it may be read") from error
    rows = _csv_lines(text, manifest)
    _, first = next(rows, (0, []))
    if not first:
        raise CatalogError(f"{manifest} is empty: write a header and one row a photo")
    header = [name.strip() for name in first]
    return header, (_csv_row(number, header, fields) for number, fields in rows if fields)


def _csv_lines(text: str, manifest: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of each row, separated by whichever of comma, semicolon and tab the header has most of."""
    separator = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise CatalogError(f"{manifest}:{reader.line_num} is not CSV ({error}): correct the line") from error


def _csv_row(number: int, header: list[str], fields: list[str]) -> _Row:
    if len(fields) > len(header):
        fault = f"{len(fields)} fields where the header has {len(header)}: put fields with a comma into quotes"
        return _Row(number, {}, fault)
    padded = [*fields, *[""] * (len(header) - len(fields))]
    return _Row(number, {name: field.strip() for name, field in zip(header, padded, strict=True)})


def _read_parquet(manifest: Path) -> tuple[list[str], Iterator[_Row]]:
    try:
        table = pq.read_table(manifest)
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(f"{manifest} cannot be read as Parquet ({error}): write it again") from error
    rows = enumerate(table.to_pylist(), start=1)
    return table.column_names, (_Row(n, {name: _text(value) for name, value in row.items()}) for n, row in rows)


def _text(value: object) -> str:
    """Numbers that went through a float column are written as what they were: 15970.0 → "15970"."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
