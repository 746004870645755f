"""DuckDB over all tables: in memory, without any access to files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from fashion_pipeline.core import tables
from fashion_pipeline.store.embeddings import Embeddings
from fashion_pipeline.store.records import KINDS, Records

KIND_OF = {table: kind for kind, made in KINDS.items() for table in made.tables}
"""Table → the kind of record that holds it."""

_FOLDERS = pa.schema([("style", pa.string()), ("record", pa.string())])


def query(root: Path, records: Records, growing: Sequence[Embeddings], sql: str) -> pa.Table:
    """The answer to a query.

    A table holds the rows of each style's latest record, with the columns `style` and `record`; `<table>_history` those
    of all records. The tables are handed over as Arrow, and DuckDB itself may touch no file and load no extension.
    Raises duckdb.Error.
    """
    import duckdb

    settings = {"enable_external_access": "false", "lock_configuration": "true"}
    with duckdb.connect(":memory:", config=settings) as connection:
        for table, kind in KIND_OF.items():
            latest = [records.latest(kind, style) for style in records.styles(kind)]
            whole = [record for style in records.styles(kind) for record in records.all(kind, style)]
            for name, some in ((table, latest), (f"{table}_history", whole)):
                connection.register(name, _rows(root, table, [record.path(f"{table}.parquet") for record in some]))
        for each in growing:
            connection.register(each.table, _rows(root, each.table, each.paths(each.styles())))
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
