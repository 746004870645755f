"""CSV and Parquet manifests: one row a photo, with its style, product key, attributes and caption.

CSV is read as spreadsheets write it: any of three separators, `sep=;` or blank lines first, UTF-8 or UTF-16, names of
columns in any case.
"""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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
from fashion_pipeline.intake.objects import is_url

_SEPARATORS = ",;\t"
_MOST_LINES = 100
"""Lines that one quoted field may have."""
_EXACT = {"halffloat": 2**11, "float": 2**24, "double": 2**53}
"""Arrow's floating types → the largest integer up to which they tell all apart."""
_SHOWN = 200
"""Characters of a value that messages show."""

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
    header, rows_of = read(manifest)
    mapping = spec.columns or _recognised(header, manifest)
    rows = rows_of(_checked_columns(mapping, header, manifest))
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
        message = getattr(error, "strerror", "") or str(error)[:_SHOWN]
        raise CatalogError(f"{_short(relative)} is not a usable path ({message}): correct the row") from error
    if outside:
        raise CatalogError(f"{_short(relative)} lies outside {folder}: move the photo below it and correct the row")
    if missing:
        raise CatalogError(f"there is no file {_short(relative)} in {folder}: add it, or remove the row")
    return str(folder / path)


def _short(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}…"


def _value(values: Mapping[str, str], column: str) -> str | None:
    value = values[column] if column else ""
    return None if value.casefold() in MISSING else value


def _recognised(header: list[str], manifest: Path) -> ColumnMapping:
    """The mapping of the product photos, or of a manifest whose columns are called `style` and `path`."""
    by_folded_name = {name.casefold(): name for name in reversed(header)}
    if {"style", "path"} <= by_folded_name.keys():
        optional = {name: by_folded_name.get(name, "") for name in ("id", "caption")}
        attributes = {facet: by_folded_name[facet] for facet in _FACETS if facet in by_folded_name}
        return ColumnMapping(
            style=by_folded_name["style"], path=by_folded_name["path"], attributes=attributes, **optional
        )
    if "articleType" in header or {"id", "usage"} <= set(header):
        return PRODUCT_PHOTOS
    raise CatalogError(
        f"{manifest} has the columns {', '.join(header)}: call those of the style and of the photo's path "
        "`style` and `path`, or name them in a column mapping"
    )


def _checked_columns(mapping: ColumnMapping, header: list[str], manifest: Path) -> list[str]:
    """The columns that are needed. Raises CatalogError for one that is missing, or there twice."""
    named = [mapping.style, mapping.id, mapping.caption, *mapping.path_columns(), *mapping.attributes.values()]
    needed = list(dict.fromkeys(column for column in named if column))
    missing = sorted({column for column in needed if column not in header})
    if missing:
        raise CatalogError(
            f"{manifest} has no column {', '.join(map(repr, missing))}; it has {', '.join(header)}: "
            "add the column, or name the right one in the column mapping"
        )
    folded = [name.casefold() for name in header]
    if twice := [column for column in needed if folded.count(column.casefold()) > 1]:
        raise CatalogError(f"{manifest} has the column {twice[0]!r} more than once: remove or rename the others")
    return needed


RowsOf = Callable[[Sequence[str]], Iterator[_Row]]
"""The rows of a manifest with the values of some columns."""


def _read_csv(manifest: Path) -> tuple[list[str], RowsOf]:
    lines = list(io.StringIO(_csv_text(manifest), newline=""))
    separator, begins = _separator(lines)
    rows = _csv_rows(lines, begins, separator)
    _, first = next(rows, (0, []))
    if not first or isinstance(first, str):
        raise CatalogError(f"{manifest} is empty: write a header and one row a photo")
    header = [name.strip() for name in first]
    return header, lambda _: (_csv_row(number, header, fields) for number, fields in rows if fields)


def _csv_text(manifest: Path) -> str:
    try:
        data = manifest.read_bytes()
    except OSError as error:
        raise CatalogError(f"{manifest} cannot be read ({error.strerror}): check that it may be read") from error
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise CatalogError(f"{manifest} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    if "\0" in text.partition("\n")[0]:
        raise CatalogError(f"{manifest} is not UTF-8 text (its header has zero bytes): save it as UTF-8")
    return text


def _separator(lines: Sequence[str]) -> tuple[str, int]:
    """What separates fields, and the line that the header begins at.

    It is what a line `sep=;` says, as Excel writes it, or else whichever of comma, semicolon and tab the header has
    most of.
    """
    begins = next((at for at, line in enumerate(lines) if line.strip()), 0)
    first = lines[begins].strip() if lines else ""
    if match := re.fullmatch(r'"?sep=(.)"?', first, re.IGNORECASE):
        return match[1], begins + 1
    return max(_SEPARATORS, key=first.count), begins


def _csv_rows(lines: Sequence[str], at: int, separator: str) -> Iterator[tuple[int, list[str] | str]]:
    """(line number, fields) of each row from a line on; where a quote is not closed, what to say of that line instead.

    A quote that nobody closes would take all rows behind it along, or those up to the next quote.
    """
    while at < len(lines):
        count, fields = _csv_record(lines[at : at + _MOST_LINES], separator)
        yield at + count, fields
        at += count


def _csv_record(lines: Sequence[str], separator: str) -> tuple[int, list[str] | str]:
    """How many lines the first row takes, and its fields, or what is wrong with the first line."""
    if '"' not in lines[0]:
        return 1, lines[0].rstrip("\r\n").split(separator) if lines[0].strip("\r\n") else []
    for count in range(1, len(lines) + 1):
        text = "".join(lines[:count])
        try:
            fields = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), [])
        except csv.Error as error:
            if "end of data" in str(error):
                continue
            break
        whole = [next(csv.reader([line], delimiter=separator), []) for line in lines[1:count]]
        if count > 1 and len(fields) > 1 and all(len(each) == len(fields) for each in whole):
            break  # each line behind the first is a row by itself
        return count, fields
    if lines[0].count('"') % 2:
        return 1, "a quote is not closed: close it, or remove it"
    try:
        return 1, next(csv.reader([lines[0]], delimiter=separator), [])
    except csv.Error as error:
        return 1, f"it is not CSV ({error}): correct the line"


def _csv_row(number: int, header: list[str], fields: list[str] | str) -> _Row:
    if isinstance(fields, str):
        return _Row(number, {}, fields)
    if len(fields) > len(header):
        fault = f"{len(fields)} fields where the header has {len(header)}: put fields with a comma into quotes"
        return _Row(number, {}, fault)
    padded = [*fields, *[""] * (len(header) - len(fields))]
    return _Row(number, {name: field.strip() for name, field in zip(header, padded, strict=True)})


def _read_parquet(manifest: Path) -> tuple[list[str], RowsOf]:
    """Its columns, and what reads the rows of some of them: the others may hold what nobody asked for."""
    try:
        header = list(pq.read_schema(manifest).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CatalogError(f"{manifest} cannot be read as Parquet ({error}): write it again") from error
    return header, lambda columns: _parquet_rows(manifest, columns)


def _parquet_rows(manifest: Path, columns: Sequence[str]) -> Iterator[_Row]:
    try:
        table = pq.read_table(manifest, columns=list(columns))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CatalogError(f"{manifest} cannot be read as Parquet ({error}): write it again") from error
    texts = [_texts(table[name], name, manifest) for name in columns]
    for number, values in enumerate(zip(*texts, strict=True), start=1):
        yield _Row(number, dict(zip(columns, values, strict=True)))


def _texts(column: pa.ChunkedArray, name: str, manifest: Path) -> list[str]:
    """The values of a column as texts. Raises CatalogError that names one whose values are none, or merge."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise CatalogError(
            f"{manifest}: column {name!r} holds {str(kind)[:_SHOWN]}, not texts: write what it names as a text, and "
            "photos as files"
        )
    try:
        if pa.types.is_floating(kind):
            return _numbers(column, str(kind), name, manifest)
        values = column.cast(pa.string()).to_pylist()
    except (pa.ArrowException, ValueError) as error:
        raise CatalogError(f"{manifest}: column {name!r} cannot be read as text ({error}): write it as text") from error
    return [(value or "").strip() for value in values]


def _numbers(column: pa.ChunkedArray, kind: str, name: str, manifest: Path) -> list[str]:
    """Numbers that went through a float column are written as what they were: 15970.0 → "15970"."""
    values: list[Any] = column.to_pylist()
    if any(value is not None and abs(value) >= _EXACT.get(kind, 2**53) for value in values):
        raise CatalogError(
            f"{manifest}: column {name!r} holds numbers of {_EXACT.get(kind, 2**53):,} or more as {kind}, which takes "
            "neighbours for one: write them as integers or texts"
        )
    return [_number(value) for value in values]


def _number(value: float | None) -> str:
    if value is None or value != value:
        return ""
    return str(int(value)) if value.is_integer() else str(value)
