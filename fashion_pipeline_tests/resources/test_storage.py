"""What is written is found again whole, and what is damaged is named."""

import json
import warnings
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from PIL import Image

from fashion_pipeline.core import tables
from fashion_pipeline.core.listing import CatalogError, ColumnMapping, SourceSpec
from fashion_pipeline.resources.storage import Storage, StorageError

SOURCE = SourceSpec("/photos", ColumnMapping(style="usage", attributes={"colour": "baseColour"}), "{style} wear")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(root=str(tmp_path / "data"))


def reject(path: str) -> dict[str, str]:
    return {"path": path, "reason": "empty: replace it"}


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# Tables


def test_rows_are_read_as_they_were_written(storage: Storage) -> None:
    written = storage.write("rejects", "coat", [reject("a.jpg"), reject("b.jpg")])
    assert storage.read("rejects", "coat").equals(written)
    assert storage.write("rejects", "coat", written.select(["reason", "path"])).equals(written)


def test_a_style_that_was_never_written_has_no_rows(storage: Storage) -> None:
    assert storage.read("images", "coat").equals(tables.schema("images").empty_table())
    assert storage.read_all("images").num_rows == 0 and storage.written_styles("images") == []


def test_writing_again_replaces_one_style_and_leaves_the_others(storage: Storage) -> None:
    for style, path in (("coat", "old.jpg"), ("bag", "bag.jpg"), ("coat", "new.jpg")):
        storage.write("rejects", style, [reject(path)])
    found = storage.read_all("rejects").select(["style", "path"]).to_pylist()
    assert found == [{"style": "bag", "path": "bag.jpg"}, {"style": "coat", "path": "new.jpg"}]


@pytest.mark.parametrize("style", ["../x", "a/b", "..", "", "/etc", "Smart Casual", "a\\b", "style=x"])
def test_no_style_name_leads_to_another_folder(storage: Storage, style: str) -> None:
    for attempt in (
        lambda: storage.write("rejects", style, [reject("a.jpg")]),
        lambda: storage.read("rejects", style),
        lambda: storage.register(style, "coat", SOURCE),
        lambda: storage.write_report(style, "report.html", "text"),
        lambda: storage.training_folder(style, "key"),
        lambda: storage.champion(style),
    ):
        with pytest.raises((StorageError, CatalogError)):
            attempt()
    assert not Path(storage.root).exists()


def test_a_name_that_leads_out_of_the_data_root_is_refused(storage: Storage) -> None:
    with pytest.raises(StorageError, match="outside of the data root"):
        storage.sample_path("../../x")


def test_an_unknown_table_is_an_error(storage: Storage) -> None:
    with pytest.raises(KeyError, match="nonsense"):
        storage.read("nonsense", "coat")


def test_a_damaged_table_is_named_with_the_mend_wherever_it_was_cut_off(storage: Storage, tmp_path: Path) -> None:
    storage.write("rejects", "coat", [reject(f"{k}.jpg") for k in range(50)])
    path = tmp_path / "data/tables/rejects/style=coat/rows.parquet"
    whole = path.read_bytes()
    for content in (b"", b"not parquet", *(whole[:cut] for cut in range(0, len(whole), 97))):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"is damaged .* delete it and materialise its asset again") as error:
            storage.read("rejects", "coat")
        assert str(path) in str(error.value)
    path.write_bytes(whole)
    assert storage.read("rejects", "coat").num_rows == 50


def test_a_table_of_another_version_is_not_misread(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write("rejects", "coat", [reject("a.jpg")])
    monkeypatch.setattr(tables, "SCHEMA_VERSION", 99)
    with pytest.raises(StorageError, match="schema version 1, this program writes 99"):
        storage.read("rejects", "coat")


def test_rows_that_do_not_fit_their_schema_are_not_written(storage: Storage) -> None:
    storage.write("rejects", "coat", [reject("old.jpg")])
    for wrong in ([{"path": 3, "reason": "x"}], pa.table({"path": ["a"]})):
        with pytest.raises((pa.ArrowException, TypeError, KeyError)):
            storage.write("rejects", "coat", wrong)
    assert storage.read("rejects", "coat")["path"].to_pylist() == ["old.jpg"]


def test_a_write_that_fails_half_way_leaves_the_old_table_and_no_litter(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write("rejects", "coat", [reject("old.jpg")])
    before = files(tmp_path)

    def full_disk(table: pa.Table, path: Path, **options: object) -> None:
        path.write_bytes(b"PAR1 half")
        raise OSError("no space left on device")

    monkeypatch.setattr("fashion_pipeline.resources.storage.pq.write_table", full_disk)
    with pytest.raises(OSError, match="no space left"):
        storage.write("rejects", "coat", [reject("new.jpg")])
    assert storage.read("rejects", "coat")["path"].to_pylist() == ["old.jpg"]
    assert files(tmp_path) == before


# SQL


def test_every_table_can_be_asked_with_its_style(storage: Storage) -> None:
    storage.write("rejects", "coat", [reject("a.jpg")])
    for table in tables.TABLES:
        assert storage.sql(f"SELECT style FROM {table} LIMIT 1").column_names == ["style"]
    assert storage.sql("SELECT style, path FROM rejects").to_pylist() == [{"style": "coat", "path": "a.jpg"}]


def test_a_style_named_like_a_number_stays_a_name(storage: Storage) -> None:
    storage.write("rejects", "2011", [reject("a.jpg")])
    assert storage.sql("SELECT style FROM rejects WHERE style = '2011'").to_pylist() == [{"style": "2011"}]
    assert storage.sql("SELECT * FROM rejects NATURAL JOIN (SELECT style FROM images)").num_rows == 0


def test_any_folder_name_will_do_as_a_data_root(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path / "mine's [1] *"))
    storage.write("rejects", "coat", [reject("a.jpg")])
    assert storage.sql("SELECT style FROM rejects").to_pylist() == [{"style": "coat"}]


def test_a_query_says_nothing_but_its_answer(storage: Storage) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert storage.sql("SELECT 1 AS one").to_pylist() == [{"one": 1}]
        assert storage.sql("").num_rows == 0


def test_a_query_that_is_wrong_is_an_error_of_duckdb(storage: Storage) -> None:
    for query in ("SELEC 1", "SELECT * FROM nowhere", "SELECT colour FROM images"):
        with pytest.raises(duckdb.Error):
            storage.sql(query)


# Sources


def test_a_registered_style_is_found_again(storage: Storage) -> None:
    storage.register("formal", "formal wear", SOURCE)
    assert storage.registered_styles() == ["formal"]
    assert storage.source("formal") == SOURCE and storage.subject("formal") == "formal wear"


def test_a_style_nobody_registered_is_answered_with_those_that_are(storage: Storage) -> None:
    with pytest.raises(StorageError, match=r"'hat' is not in the catalog \(known: none yet\): .* --source"):
        storage.source("hat")
    storage.register("coat", "coat", SOURCE)
    with pytest.raises(StorageError, match=r"known: coat"):
        storage.subject("hat")


def test_a_damaged_registration_is_named(storage: Storage) -> None:
    storage.register("coat", "coat", SOURCE)
    storage.registration_path("coat").write_text("{half")
    with pytest.raises(StorageError, match=r"coat\.json is damaged"):
        storage.source("coat")


def test_what_was_prepared_is_remembered_and_is_no_style(storage: Storage) -> None:
    assert storage.prepared_state("coat") is None
    storage.register("coat", "coat", SOURCE)
    storage.write_prepared_state("coat", "abc")
    assert storage.prepared_state("coat") == "abc" and storage.registered_styles() == ["coat"]


# Images, reports, versions


def test_a_sample_appears_whole_or_not_at_all(storage: Storage, tmp_path: Path) -> None:
    storage.write_sample("ab12", Image.new("RGB", (8, 8), "red"))
    with Image.open(storage.sample_path("ab12")) as image:
        assert image.format == "PNG" and image.size == (8, 8)
    with pytest.raises(OSError, match="cannot write mode"):
        storage.write_sample("cd34", Image.new("F", (8, 8)))
    assert files(tmp_path / "data") == ["images/ab/ab12.png"]


def test_reports_are_stored_as_text_or_json(storage: Storage) -> None:
    storage.write_report("coat", "report.html", "<p>für")
    storage.write_report("coat", "prompt_report.json", {"subject": "für"})
    assert storage.report_path("coat", "report.html").read_text(encoding="utf-8") == "<p>für"
    assert storage.read_report("coat", "prompt_report.json") == {"subject": "für"}
    with pytest.raises(StorageError, match=r"has no evaluation_report\.json: run the pipeline for it first"):
        storage.read_report("coat", "evaluation_report.json")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("one")
    return folder


def test_the_champion_is_the_version_published_last(storage: Storage, model: Path) -> None:
    assert storage.champion("coat") is None
    first = storage.publish("coat", "v1", model, {"card.md": "text", "copy": model / "weights"})
    assert storage.champion("coat") == first
    assert files(first) == ["card.md", "copy", "weights"]
    assert storage.publish("coat", "v2", model, {}) == storage.champion("coat") != first
    assert first.is_dir()


def test_publishing_a_version_again_changes_nothing_in_it(storage: Storage, model: Path) -> None:
    folder = storage.publish("coat", "v1", model, {})
    (model / "weights").write_text("two")
    storage.publish("coat", "v1", model, {})
    assert (folder / "weights").read_text() == "one"


def test_a_version_that_could_not_be_completed_is_not_the_champion(storage: Storage, model: Path) -> None:
    first = storage.publish("coat", "v1", model, {})
    with pytest.raises(FileNotFoundError):
        storage.publish("coat", "v2", model, {"card.md": model / "missing"})
    assert storage.champion("coat") == first
    assert sorted(path.name for path in first.parent.iterdir()) == ["champion.json", "v1"]


def test_a_champion_whose_folder_vanished_is_named(storage: Storage, model: Path) -> None:
    folder = storage.publish("coat", "v1", model, {})
    (folder.parent / "champion.json").write_text(json.dumps({"version": "v7"}))
    with pytest.raises(StorageError, match="names version 'v7', which is missing: publish 'coat' again"):
        storage.champion("coat")
