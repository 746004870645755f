"""`sql` reads our tables and nothing else: no file, no variable, no extension, no setting, and it writes nothing."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.store.planting import catalog

SECRET = "the secret outside"
mine = pa.table({"a": [SECRET]})
"""A variable that DuckDB would take for a table."""

ATTACKS = (
    "SELECT * FROM read_csv('{root}/secret.csv')",
    "SELECT * FROM '{root}/secret.csv'",
    "FROM '{root}/secret.parquet'",
    "SELECT * FROM read_text('{root}/secret.csv')",
    "SELECT * FROM read_blob('{root}/*')",
    "SELECT * FROM read_json('{root}/secret.csv')",
    "SELECT * FROM parquet_scan('{root}/secret.parquet')",
    "SELECT * FROM parquet_metadata('{root}/secret.parquet')",
    "SELECT * FROM sniff_csv('{root}/secret.csv')",
    "SELECT * FROM glob('{root}/*')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT content FROM read_text('/proc/self/environ')",
    "SELECT getenv('SECRET_OF_OURS')",
    "SELECT * FROM mine",
    "SELECT * FROM files",
    "COPY (SELECT 1) TO '{root}/out.csv'",
    "COPY (SELECT 1) TO '{root}/out.parquet' (FORMAT parquet)",
    "COPY images FROM '{root}/secret.csv'",
    "EXPORT DATABASE '{root}/out'",
    "IMPORT DATABASE '{root}'",
    "ATTACH '{root}/out.db'",
    "ATTACH '{root}/out.db' AS o (READ_ONLY)",
    "USE x",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{root}/evil.so'",
    "SELECT * FROM read_csv('http://127.0.0.1:1/x')",
    "CREATE SECRET s (TYPE s3, KEY_ID 'x', SECRET 'y')",
    "CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'x', SECRET 'y')",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET python_enable_replacements = true",
    "SET temp_directory = '{root}/spill'",
    "SET home_directory = '{root}'",
    "SET extension_directory = '{root}'",
    "RESET enable_external_access",
    "PRAGMA enable_external_access = true",
    "PRAGMA enable_profiling = 'json'",
    "PRAGMA profile_output = '{root}/out.json'",
    "SET log_query_path = '{root}/out.log'",
    "CALL enable_logging(storage = 'file', storage_path = '{root}')",
    "INSERT INTO images SELECT * FROM images",
    "DELETE FROM images",
    "UPDATE images SET path = 'x'",
)
"""Each must be refused, or tell and change nothing."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SECRET_OF_OURS", SECRET)
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "data")
    catalog(store, "coat", "a.jpg")
    (tmp_path / "secret.csv").write_text(f"a\n{SECRET}\n")
    duckdb.sql("SELECT 1 AS a").write_parquet(str(tmp_path / "secret.parquet"))
    return store


def everything(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in root.rglob("*")}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_query_reads_or_writes_anything_but_our_tables(store: Store, tmp_path: Path, attack: str) -> None:
    before = everything(tmp_path)
    try:
        told = str(store.sql(attack.format(root=tmp_path)).to_pylist())
    except duckdb.Error as error:
        told = str(error)
    else:
        assert attack.startswith(("SELECT getenv", "INSERT", "DELETE", "UPDATE", "USE", "PRAGMA")), "it was not refused"
    assert SECRET not in told
    assert everything(tmp_path) == before and store.sql("SELECT path FROM rejects").num_rows == 1


def test_what_does_not_fit_into_memory_is_an_error_and_not_a_file(store: Store, tmp_path: Path) -> None:
    before = everything(tmp_path)
    with pytest.raises(duckdb.Error):
        store.sql("SET memory_limit = '20MB'")
    names = ("temp_directory", "lock_configuration", "enable_external_access", "python_enable_replacements")
    found = store.sql("SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in names)).to_pylist()
    assert found == [dict(zip(names, ("", True, False, False), strict=True))]
    assert everything(tmp_path) == before and not Path(".tmp").exists()
