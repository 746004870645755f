"""DuckDB over all tables: in memory, without any access to files."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fashion_pipeline.core import tables
from fashion_pipeline.store.embeddings import Embeddings
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import KINDS, Record, Records
from fashion_pipeline.store.storage.files import Files
from fashion_pipeline.store.storage.parquet import read_parquet

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


def query(files: Files, records: Records, growing: Sequence[Embeddings], sql: str, tell: Tell) -> pa.Table:
    """The answer to a query; files that are damaged are left out of it, and `tell` is called for each.

    A table holds the rows of each style's latest record, with the columns `style` and `record`; `<table>_history` those
    of all records. The tables are handed over as Arrow, and DuckDB itself may touch no file and load no extension.
    From object storage come the tables that the query names, and of those what it needs, unless they are here. Raises
    duckdb.Error.
    """
    import duckdb

    named = set(re.findall(r"\w+", sql.lower()))
    shared = files.remote is not None
    found = _files(files, records, growing, (lambda name: name in named) if shared else (lambda name: True), tell)
    try:
        return _answer(files, found, sql)
    except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException):
        raise
    except duckdb.Error:
        here = {name: [files.here(path) for path in paths] for name, paths in found.items()}
        whole = {name: [path for path in paths if _is_whole(name, path, tell)] for name, paths in here.items()}
        if whole == found and not shared:
            raise
        return _answer(files, whole, sql)


def _files(
    files: Files, records: Records, growing: Sequence[Embeddings], wanted: Callable[[str], bool], tell: Tell
) -> dict[str, list[Path]]:
    """The files of every table that is wanted; not all of them need to be on this machine."""
    by_table: dict[str, list[Path]] = {}
    for kind, description in KINDS.items():
        tables = [table for table in description.tables if wanted(table)]
        histories = [table for table in description.tables if wanted(f"{table}{HISTORY}")]
        latest = []
        for style in records.styles(kind) if tables else ():
            try:
                latest.append(records.latest(kind, style))
            except StorageError as error:
                tell(f"left out: {error}")
        styles = records.styles(kind) if histories else ()
        whole = [record for style in styles for record in records.all(kind, style)]
        for table in tables:
            by_table[table] = list(_there(files, latest, table, tell))
        for table in histories:
            by_table[f"{table}{HISTORY}"] = list(_there(files, whole, table, lambda text: None))
    return by_table | {each.table: each.paths(each.styles()) for each in growing if wanted(each.table)}


def _there(files: Files, records: Sequence[Record], table: str, tell: Tell) -> Iterator[Path]:
    """The files that exist. Records of an earlier version of the program lack the tables that are new."""
    for record in records:
        if path := next(iter(files.glob(record.folder, f"{table}.parquet")), None):
            yield path
        elif not record.is_older_than(table):
            missing = record.folder / f"{table}.parquet"
            tell(f"left out: {missing} is missing: the next run that needs it writes it anew")


def _is_whole(name: str, path: Path, tell: Tell) -> bool:
    try:
        read_parquet(name.removesuffix(HISTORY), path, "the next run that needs it writes it anew")
    except StorageError as error:
        if not name.endswith(HISTORY):
            tell(f"left out: {error}")
        return False
    return True


def _answer(files: Files, found: Mapping[str, Sequence[Path]], sql: str) -> pa.Table:
    import duckdb

    with duckdb.connect(":memory:") as connection:
        for setting in _LOCKED:
            connection.execute(setting)
        for name, paths in found.items():
            connection.register(name, _rows(files, name.removesuffix(HISTORY), paths))
        answer = connection.sql(sql)
        return pa.table({}) if answer is None else answer.to_arrow_table()


def _rows(files: Files, table: str, paths: Sequence[Path]) -> Any:
    """The rows of some files, read when they are asked for; style and record come from the names of the folders.

    They are read where they lie: here, or in object storage, if one of them is not here.
    """
    import pyarrow.dataset as ds  # it loads pandas where that is installed

    schema = pa.schema([*tables.schema(table), *_FOLDERS])
    if not paths:
        return schema.empty_table()
    system, base, names = None, str(files.root), [str(path) for path in paths]
    if files.remote is not None and not all(path.exists() for path in paths):
        system, base, names = files.remote.in_place(paths)
    return ds.dataset(
        names,
        schema=schema,
        format="parquet",
        filesystem=system,
        partitioning=ds.partitioning(_FOLDERS, flavor="hive"),
        partition_base_dir=base,
    )
