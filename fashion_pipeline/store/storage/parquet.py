"""One Parquet file of a table: written in its schema, checked when it is read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fashion_pipeline.core import tables
from fashion_pipeline.store.errors import DamagedError, NewerVersionError, StorageError


def write_parquet(table: str, rows: pa.Table | list[dict[str, Any]], path: Path) -> pa.Table:
    """Write rows of a table; returns them in its schema. Raises pyarrow.ArrowInvalid or TypeError for others."""
    ready = in_schema(table, rows)
    pq.write_table(ready, path, compression="zstd", write_page_checksum=True)
    return ready


def in_schema(table: str, rows: pa.Table | list[dict[str, Any]]) -> pa.Table:
    """Rows in the table's schema."""
    schema = tables.schema(table)
    return tables.rows_to_table(table, rows) if isinstance(rows, list) else rows.select(schema.names).cast(schema)


def read_parquet(table: str, path: Path, mend: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a file, also of one that an earlier version of the program wrote: columns that are new are null.

    With `columns` only these are read, and checked. Raises DamagedError that names a damaged file and says `mend`,
    NewerVersionError for one that a later version of the program wrote, and StorageError for one that cannot be read or
    whose schema this program does not know.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        version = _version(file.schema_arrow)
        _require_readable(table, path, version, file.schema_arrow.names, mend)
        rows = file.read(columns)
    except OSError as error:
        if error.errno is not None:  # the system's word on the file, not Arrow's on what is in it
            raise StorageError(f"{path} cannot be read ({error.strerror}): {mend}") from error
        raise DamagedError(f"{path} is damaged ({error}): {mend}") from error
    except (pa.ArrowException, ValueError) as error:
        raise DamagedError(f"{path} is damaged ({error}): {mend}") from error
    whole = rows if int(version) == tables.SCHEMA_VERSION else _brought_up(table, rows)
    return whole if columns is None else whole.select(list(columns))


def _require_readable(table: str, path: Path, version: str, columns: Sequence[str], mend: str) -> None:
    if version.isdecimal() and int(version) > tables.SCHEMA_VERSION:
        raise NewerVersionError(
            f"{path} was written by a later version of the program (schema {version}, this one knows "
            f"{tables.SCHEMA_VERSION}): install that version"
        )
    is_readable = version.isdecimal() and int(version) >= tables.READABLE_FROM
    if not is_readable or (int(version) == tables.SCHEMA_VERSION and columns != tables.schema(table).names):
        readable = f"{tables.READABLE_FROM} to {tables.SCHEMA_VERSION}"
        raise StorageError(
            f"{path} has schema version {version}, this program reads {readable}: {mend}, or install the version of "
            "the program that wrote it"
        )


def is_of_before(table: str, neighbour: Path) -> bool:
    """Whether a file that lies beside was written before a table came, so that nothing is missing where it is not."""
    try:
        version = _version(pq.read_schema(neighbour))
    except (pa.ArrowException, OSError):
        return False
    return version.isdecimal() and int(version) < tables.ADDED.get(table, 0)


def _version(schema: pa.Schema) -> str:
    return str((schema.metadata or {}).get(b"fashion_pipeline.schema_version", b"none").decode())


def row_count(path: Path) -> int:
    """The rows of a file, by its footer; 0 where that cannot be read."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        return 0


def _brought_up(table: str, found: pa.Table) -> pa.Table:
    """Rows of an earlier schema in today's."""
    schema = tables.schema(table)
    columns = [
        found[field.name].cast(field.type) if field.name in found.column_names else pa.nulls(len(found), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
