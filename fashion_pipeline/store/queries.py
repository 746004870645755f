"""DuckDB over all tables: in memory, without any access to files."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from fashion_pipeline.core import tables
from fashion_pipeline.store.embeddings import Embeddings
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.parquet import read_parquet
from fashion_pipeline.store.records import KINDS, Records

HISTORY = "_history"
"""What is added to a table's name for the rows of all runs."""

_LOCKED = (
    "SET temp_directory = ''",  # what does not fit into memory is an error, not a file
    "SET python_enable_replacements = false",  # variables of this program would be tables
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
"""DuckDB may read and write no file and no variable, load no extension, and change none of that."""

_FOLDERS = pa.schema([("style", pa.string()), ("record", pa.string())])


Tell = Callable[[str], None]


def query(
    root: Path, records: Records, growing: Sequence[Embeddings], sql: str, tell: Tell, *, fetched: bool = False
) -> pa.Table:
    """The answer to a query; files that are damaged are left out of it, and `tell` is called for each.

    A table holds the rows of each style's latest record, with the columns `style` and `record`; `<table>_history` those
    of all records. The tables are handed over as Arrow, and DuckDB itself may touch no file and load no extension.
    Where files are `fetched` from elsewhere, there are only the tables that the query names. Raises duckdb.Error.
    """
    import duckdb

    named = set(re.findall(r"\w+", sql.lower()))
    files = _files(records, growing, (lambda name: name in named) if fetched else (lambda name: True), tell)
    try:
        return _answer(root, files, sql)
    except duckdb.Error:
        whole = {name: [path for path in paths if _is_whole(name, path, tell)] for name, paths in files.items()}
        if whole == files:
            raise
        return _answer(root, whole, sql)


def _files(
    records: Records, growing: Sequence[Embeddings], wanted: Callable[[str], bool], tell: Tell
) -> dict[str, list[Path]]:
    """The files of every table that is wanted."""
    found: dict[str, list[Path]] = {}
    for kind, made in KINDS.items():
        tables = [table for table in made.tables if wanted(table)]
        histories = [table for table in made.tables if wanted(f"{table}{HISTORY}")]
        latest = []
        for style in records.styles(kind) if tables else ():
            try:
                latest.append(records.latest(kind, style))
            except StorageError as error:
                tell(f"left out: {error}")
        styles = records.styles(kind) if histories else ()
        whole = [record for style in styles for record in records.all(kind, style)]
        for table in tables:
            found[table] = _there([record.path(f"{table}.parquet") for record in latest], tell)
        for table in histories:
            paths = [record.path(f"{table}.parquet") for record in whole]
            found[f"{table}{HISTORY}"] = _there(paths, lambda text: None)
    return found | {each.table: each.paths(each.styles()) for each in growing if wanted(each.table)}


def _there(paths: Sequence[Path], tell: Tell) -> list[Path]:
    """The files that exist; records that an earlier version of the program made lack the tables that are new."""
    for path in paths:
        if not path.exists():
            tell(f"left out: {path} is missing: the next run that needs it writes it anew")
    return [path for path in paths if path.exists()]


def _is_whole(name: str, path: Path, tell: Tell) -> bool:
    try:
        read_parquet(name.removesuffix(HISTORY), path, "the next run that needs it writes it anew")
    except StorageError as error:
        if not name.endswith(HISTORY):
            tell(f"left out: {error}")
        return False
    return True


def _answer(root: Path, files: Mapping[str, Sequence[Path]], sql: str) -> pa.Table:
    import duckdb

    with duckdb.connect(":memory:") as connection:
        for setting in _LOCKED:
            connection.execute(setting)
        for name, paths in files.items():
            connection.register(name, _rows(root, name.removesuffix(HISTORY), paths))
        found = connection.sql(sql)
        return pa.table({}) if found is None else found.to_arrow_table()


def _rows(root: Path, table: str, paths: Sequence[Path]) -> Any:
    """The rows of some files, read when they are asked for; style and record come from the names of the folders."""
    schema = pa.schema([*tables.schema(table), *_FOLDERS])
    if not paths:
        return schema.empty_table()
    partitioning = ds.partitioning(_FOLDERS, flavor="hive")
    return ds.dataset(
        [str(path) for path in paths],
        schema=schema,
        format="parquet",
        partitioning=partitioning,
        partition_base_dir=str(root),
    )
