"""Questions to all tables by SQL, which may touch nothing else."""

import warnings
from pathlib import Path

import duckdb
import pytest

from fashion_pipeline.core import tables
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.store.planting import catalog


def test_every_table_can_be_asked_with_its_style_and_its_history(store: Store) -> None:
    catalog(store, "coat", "a.jpg")
    catalog(store, "coat", "b.jpg")
    for table in tables.TABLES:
        assert store.sql(f"SELECT style FROM {table} LIMIT 1").column_names == ["style"]
    assert store.sql("SELECT style, path FROM rejects").to_pylist() == [{"style": "coat", "path": "b.jpg"}]
    assert store.sql("SELECT count(DISTINCT record) AS n FROM rejects_history").to_pylist() == [{"n": 2}]


def test_a_style_named_like_a_number_stays_a_name(store: Store) -> None:
    catalog(store, "2011", "a.jpg")
    assert store.sql("SELECT style FROM rejects WHERE style = '2011'").to_pylist() == [{"style": "2011"}]


def test_any_folder_name_will_do_as_a_data_root(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine's [1] *")
    catalog(store, "coat", "a.jpg")
    assert store.sql("SELECT style FROM rejects").to_pylist() == [{"style": "coat"}]


def test_a_query_says_nothing_but_its_answer(store: Store) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.sql("SELECT 1 AS one").to_pylist() == [{"one": 1}]
        assert store.sql("").num_rows == 0


def test_a_query_that_is_wrong_is_an_error_of_duckdb(store: Store) -> None:
    for query in ("SELEC 1", "SELECT * FROM nowhere", "SELECT colour FROM images"):
        with pytest.raises(duckdb.Error):
            store.sql(query)


def test_a_query_reads_and_writes_nothing_outside_the_data_root(store: Store, tmp_path: Path) -> None:
    catalog(store, "coat", "a.jpg")
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for query in (
        f"SELECT * FROM read_csv('{secret}')",
        f"SELECT * FROM read_text('{secret}')",
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        f"ATTACH '{tmp_path}/x.db'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ):
        with pytest.raises(duckdb.Error):
            store.sql(query)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "secret.csv"]
