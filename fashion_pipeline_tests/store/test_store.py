"""What is written is found again whole, and what is damaged is named."""

import errno
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fashion_pipeline.core import tables
from fashion_pipeline.core.catalog.listing import CatalogError, SourceSpec
from fashion_pipeline.store.errors import NewerVersionError, StorageError
from fashion_pipeline.store.records import KINDS, MissingRecordError
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.store.planting import SOURCE, catalog, files, put_in_use, reject

# Records


def test_a_record_is_read_as_it_was_written(store: Store) -> None:
    written = catalog(store, "coat", "a.jpg", "b.jpg", run="r1")
    found = store.records.latest("catalog", "coat")
    assert found == written and found.run == "r1"
    assert found.table("rejects")["path"].to_pylist() == ["a.jpg", "b.jpg"]


def test_the_same_content_is_the_same_record_and_keeps_the_run_that_made_it(store: Store) -> None:
    first = catalog(store, "coat", "a.jpg", run="r1")
    again = catalog(store, "coat", "a.jpg", run="r2")
    assert again.key == first.key and again.run == "r1"
    assert store.records.latest("catalog", "coat").run == "r1"


def test_no_run_changes_what_another_made_and_the_latest_is_a_pointer(store: Store) -> None:
    first, second = catalog(store, "coat", "a.jpg"), catalog(store, "coat", "b.jpg")
    assert first.table("rejects")["path"].to_pylist() == ["a.jpg"]
    assert store.records.latest("catalog", "coat") == second
    catalog(store, "coat", "a.jpg")
    assert store.records.latest("catalog", "coat") == first
    assert len(store.records.all("catalog", "coat")) == 2


@pytest.mark.parametrize("change", ["style", "inputs", "made_of", "tables"])
def test_whatever_determines_a_record_changes_its_key(store: Store, change: str) -> None:
    parent = catalog(store, "coat", "a.jpg")
    changed = {
        "style": {"style": "bag"},
        "inputs": {"inputs": {"catalog": catalog(store, "coat", "b.jpg")}},
        "made_of": {"made_of": {"budget": 2}},
        "tables": {"tables": {"rejects": [reject("c.jpg")]}},
    }
    plain = {"style": "coat", "inputs": {"catalog": parent}, "made_of": {"budget": 1}, "tables": {"rejects": []}}
    one = store.records.add("catalog", **plain)  # type: ignore[arg-type]
    other = store.records.add("catalog", **(plain | changed[change]))  # type: ignore[arg-type]
    assert one.key != other.key


def test_a_record_leads_to_all_that_it_was_made_from(store: Store) -> None:
    photos = catalog(store, "coat", "a.jpg")
    features = store.records.add("features", "coat", inputs={"catalog": photos})
    curation = store.records.add("curation", "coat", inputs={"features": features})
    assert list(store.records.ancestry(curation)) == ["catalog", "features", "curation"]
    assert store.records.input(features, "catalog") == photos


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_stage_that_was_never_run_is_answered_with_the_asset_to_materialise(store: Store, kind: str) -> None:
    assert store.records.newest(kind, "coat") is None
    with pytest.raises(MissingRecordError, match=f"'coat' has no {kind} yet: materialise {KINDS[kind].asset} for it"):
        store.records.latest(kind, "coat")


def test_files_of_a_record_are_text_values_copies_and_whatever_is_written(store: Store, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"w")
    made = store.records.add(
        "model",
        "coat",
        files={
            "page.html": "<p>für",
            "report.json": {"subject": "für"},
            "weights": tmp_path / "weights",
            "made": lambda path: path.mkdir(),
        },
    )
    assert made.path("page.html").read_text(encoding="utf-8") == "<p>für"
    assert made.json("report.json") == {"subject": "für"}
    assert made.path("weights").read_bytes() == b"w" and made.path("made").is_dir()
    with pytest.raises(StorageError, match=r"gone\.json is missing: materialise specialised_model of 'coat' again"):
        made.json("gone.json")
    made.path("report.json").unlink()
    assert store.records.add("model", "coat", files={"report.json": {"subject": "für"}}).json("report.json")


def test_a_record_that_could_not_be_completed_is_not_there_and_leaves_no_litter(store: Store, tmp_path: Path) -> None:
    first = store.records.add("model", "coat", files={"a": "a"})
    before = files(tmp_path)
    with pytest.raises(FileNotFoundError):
        store.records.add("model", "coat", made_of={"x": 1}, files={"a": "b", "b": tmp_path / "missing"})
    assert store.records.latest("model", "coat") == first and files(tmp_path) == before


def test_a_pointer_that_leads_nowhere_is_named(store: Store) -> None:
    made = catalog(store, "coat", "a.jpg")
    (made.folder / "record.json").unlink()
    with pytest.raises(StorageError, match=r"latest\.json names record .* missing: materialise raw_images of 'coat'"):
        store.records.latest("catalog", "coat")


def test_a_data_root_of_another_version_is_refused_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "old" / "tables" / "images" / "style=coat").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"another version of this program.*use a new data root"):
        Store(tmp_path / "old")
    catalog(Store(tmp_path / "new"), "coat", "a.jpg")
    (tmp_path / "new" / "layout.json").write_text('{"layout": 99}')
    with pytest.raises(StorageError, match="another version"):
        Store(tmp_path / "new")


@pytest.mark.parametrize("style", ["../x", "a/b", "..", "", "/etc", "Smart Casual", "a\\b", "style=x"])
def test_no_style_name_leads_to_another_folder(store: Store, style: str) -> None:
    for attempt in (
        lambda: catalog(store, style, "a.jpg"),
        lambda: store.records.newest("catalog", style),
        lambda: store.sources.register(style, "coat", SOURCE),
        lambda: store.features.index(style, "encoder", "m"),
        lambda: store.training_folder(style, "key"),
        lambda: store.locks.style(style),
        lambda: store.versions.champion(style),
    ):
        with pytest.raises((StorageError, CatalogError)):
            attempt()
    assert not store.root.exists()


def test_a_name_that_leads_out_of_the_data_root_is_refused(store: Store) -> None:
    for name in ("../../x", "..", "a/b"):
        with pytest.raises(StorageError, match="outside of the data root"):
            store.samples.path(name)
        with pytest.raises(StorageError, match="outside of the data root"):
            put_in_use(store, "coat", name, store.root, {}, {})


@pytest.mark.parametrize("table", ["rejects", "training_pairs", "leaderboard"])
def test_a_damaged_table_is_named_with_the_mend_wherever_it_was_cut_off(store: Store, table: str) -> None:
    row = {
        "rejects": reject("a.jpg"),
        "training_pairs": dict.fromkeys(("id", "origin", "path", "caption", "why"), "x") | {"kept": True, "score": 0.5},
        "leaderboard": dict.fromkeys(("candidate", "strategy", "prompt", "negative_prompt"), "x")
        | {"images": 1, "products": 1, "mean": 0.5, "rung": 1},
    }[table]
    kind = next(kind for kind, made in KINDS.items() if table in made.tables)
    made = store.records.add(kind, "coat", tables={table: [row] * 50})
    path = made.path(f"{table}.parquet")
    whole = path.read_bytes()
    damaged = [b"", b"not parquet", *(whole[:cut] for cut in range(0, len(whole), 97))]
    damaged += [whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :] for at in range(4, 120, 7)]
    for content in damaged:
        path.write_bytes(content)
        try:
            read = made.table(table)
        except StorageError as error:
            assert str(path) in str(error) and f"materialise {KINDS[kind].asset} of 'coat' again" in str(error)
        else:
            assert read.to_pylist() == [read.to_pylist()[0]] * 50, "a byte that changes nothing that is read"
    path.write_bytes(whole)
    assert made.table(table).num_rows == 50


def test_a_table_of_a_later_version_is_not_misread(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made, now = catalog(store, "coat", "a.jpg"), tables.SCHEMA_VERSION
    monkeypatch.setattr(tables, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(tables, "READABLE_FROM", 1)
    with pytest.raises(
        StorageError, match=rf"later version of the program \(schema {now}, this one knows 2\): install"
    ):
        made.table("rejects")


def test_a_table_of_an_earlier_version_is_read_with_its_new_columns_null_unless_it_meant_something_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = catalog(store, "coat", "a.jpg")
    before = pa.schema([tables.schema("rejects").field("path")], {"fashion_pipeline.schema_version": "2"})
    pq.write_table(pa.table({"path": ["a.jpg"]}, before), made.path("rejects.parquet"))
    with pytest.raises(StorageError, match=f"schema version 2, this program reads 3 to {tables.SCHEMA_VERSION}"):
        made.table("rejects")
    monkeypatch.setattr(tables, "READABLE_FROM", 2)
    assert made.table("rejects").to_pylist() == [{"path": "a.jpg", "reason": None}]
    assert made.table("rejects").schema.metadata == tables.schema("rejects").metadata
    assert store.sql("SELECT path, reason FROM rejects").to_pylist() == [{"path": "a.jpg", "reason": None}]


def test_rows_that_do_not_fit_their_schema_are_not_written(store: Store) -> None:
    for wrong in ([{"path": 3, "reason": "x"}], pa.table({"path": ["a"]})):
        with pytest.raises((pa.ArrowException, TypeError, KeyError)):
            store.records.add("catalog", "coat", tables={"rejects": wrong})
    assert store.records.newest("catalog", "coat") is None


# Embeddings


def unit(n: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_embeddings_grow_and_nothing_that_is_there_is_written_again(store: Store, tmp_path: Path) -> None:
    first, second = unit(2), unit(1, 1)
    store.features.add("coat", "encoder", "m", ["a", "b"], first)
    (part,) = (tmp_path / "data" / "embeddings").rglob("*.parquet")
    before = part.stat().st_mtime_ns
    store.features.add("coat", "encoder", "m", ["c"], second)
    index = store.features.index("coat", "encoder", "m")
    assert np.array_equal(index.rows(["c", "a"]), np.stack([second[0], first[0]]))
    assert part.stat().st_mtime_ns == before
    assert store.features.index("coat", "judge", "m").missing(["a"]) == ["a"]
    assert store.features.index("coat", "encoder", "other").missing(["a"]) == ["a"]


def test_a_damaged_file_of_embeddings_is_computed_again(store: Store, tmp_path: Path) -> None:
    store.features.add("coat", "encoder", "m", ["a"], unit(1))
    store.features.add("coat", "encoder", "m", ["b"], unit(1))
    path = next((tmp_path / "data" / "embeddings").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:50])
    assert len(store.features.index("coat", "encoder", "m").missing(["a", "b"])) == 1
    assert not path.exists()


# Images, versions


def test_a_sample_appears_whole_or_not_at_all(store: Store, tmp_path: Path) -> None:
    store.samples.write("ab12", Image.new("RGB", (8, 8), "red"))
    with Image.open(store.samples.path("ab12")) as image:
        assert image.format == "PNG" and image.size == (8, 8)
    with pytest.raises(OSError, match="cannot write mode"):
        store.samples.write("cd34", Image.new("F", (8, 8)))
    assert files(tmp_path / "data") == ["images/ab/ab12.png"]


def test_a_sample_that_was_cut_off_counts_as_not_there(store: Store) -> None:
    store.samples.write("ab12", Image.effect_noise((32, 32), 50).convert("RGB"))
    path = store.samples.path("ab12")
    whole = path.read_bytes()
    assert store.samples.readable("ab12") and not store.samples.readable("ff00")
    for content in (b"", whole[:20], whole[: len(whole) // 2], whole[:60] + b"x" + whole[61:]):
        path.write_bytes(content)
        assert not store.samples.readable("ab12")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("one")
    return folder


def test_the_champion_is_the_version_published_last(store: Store, model: Path) -> None:
    assert store.versions.champion("coat") is None
    first = put_in_use(store, "coat", "v1", model, {"card.md": "text", "copy": model / "weights"}, {})
    assert store.versions.champion("coat") == first
    assert files(first) == ["card.md", "copy", "version.json", "weights"]
    assert put_in_use(store, "coat", "v2", model, {}, {}) == store.versions.champion("coat") != first
    assert first.is_dir() and store.versions.all("coat") == [first, first.with_name("v2")]


def test_a_version_keeps_the_records_behind_it_when_they_are_gone(store: Store, model: Path) -> None:
    photos = catalog(store, "coat", "a.jpg")
    folder = put_in_use(store, "coat", "v1", model, {}, {"catalog": photos})
    assert files(folder / "trail") == ["catalog/images.parquet", "catalog/record.json", "catalog/rejects.parquet"]
    assert json.loads((folder / "trail/catalog/record.json").read_text())["key"] == photos.key


def test_publishing_a_version_again_changes_nothing_in_it(store: Store, model: Path) -> None:
    folder = put_in_use(store, "coat", "v1", model, {}, {})
    (model / "weights").write_text("two")
    put_in_use(store, "coat", "v1", model, {}, {})
    assert (folder / "weights").read_text() == "one"


def test_a_version_that_could_not_be_completed_is_not_the_champion(store: Store, model: Path) -> None:
    first = put_in_use(store, "coat", "v1", model, {}, {})
    with pytest.raises(FileNotFoundError):
        put_in_use(store, "coat", "v2", model, {"card.md": model / "missing"}, {})
    assert store.versions.champion("coat") == first
    assert sorted(path.name for path in first.parent.iterdir()) == ["champion.json", "v1"]


def test_a_champion_whose_folder_vanished_is_named(store: Store, model: Path) -> None:
    folder = put_in_use(store, "coat", "v1", model, {}, {})
    (folder.parent / "champion.json").write_text(json.dumps({"version": "v7"}))
    with pytest.raises(StorageError, match=r"version v7 of 'coat' is in use, but .+ is missing: go back with"):
        store.versions.champion("coat")


def test_records_of_an_earlier_version_lack_new_tables_and_are_left_out_of_these_alone(store: Store) -> None:
    sample = dict.fromkeys(("candidate", "strategy", "prompt", "negative_prompt"), "x")
    row = sample | {"images": 1, "products": 1, "mean": 0.5, "rung": 1}
    empty: dict[str, list[dict[str, object]]] = {name: [] for name in ("samples", "formats", "phrases", "progress")}
    record = store.records.add("search", "coat", tables={**empty, "leaderboard": [row], "explored": []})
    record.path("formats.parquet").unlink()
    told: list[str] = []
    assert store.sql("SELECT prompt FROM leaderboard", told.append).to_pylist() == [{"prompt": "x"}]
    assert store.sql("SELECT * FROM formats_history", told.append).num_rows == 0
    assert told and all("formats.parquet is missing" in text for text in told)


def test_a_table_that_came_after_a_record_reads_as_empty_and_one_that_is_gone_does_not(store: Store) -> None:
    empty: dict[str, list[dict[str, object]]] = {name: [] for name in KINDS["search"].tables}
    record = store.records.add("search", "coat", tables=empty)
    record.path("explored.parquet").unlink()
    with pytest.raises(StorageError, match=r"explored\.parquet cannot be read"):
        record.table("explored")
    samples = pq.read_table(record.path("samples.parquet"))
    of_before = {**samples.schema.metadata, b"fashion_pipeline.schema_version": b"3"}
    pq.write_table(samples.replace_schema_metadata(of_before), record.path("samples.parquet"))
    assert record.table("explored").num_rows == 0 == record.table("explored", ["prompt"]).num_rows
    told: list[str] = []
    assert store.sql("SELECT * FROM explored", told.append).num_rows == 0 and not told


def later(path: Path) -> bytes:
    """Make a table one of a later schema; returns its bytes."""
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"fashion_pipeline.schema_version": b"999"}
    grown = table.append_column("of the future", pa.nulls(len(table), pa.int64()))
    pq.write_table(grown.replace_schema_metadata(metadata), path)
    return path.read_bytes()


def test_what_a_later_version_wrote_is_refused_and_never_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.features.add("coat", "encoder", "m", ["a"], np.eye(1, dtype=np.float32))
    (path,) = store.features.paths(["coat"])
    before = later(path)
    with pytest.raises(NewerVersionError, match=r"written by a later version of the program \(schema 999.*install"):
        store.features.index("coat", "encoder", "m")
    assert path.read_bytes() == before

    content: dict[str, Any] = {"tables": {"training_log": []}, "files": {"weights.bin": b"x"}}
    made = store.records.add("training", "coat", **content)
    before = later(made.folder / "training_log.parquet")
    for again in (lambda: store.records.add("training", "coat", **content), lambda: made.table("training_log")):
        with pytest.raises(NewerVersionError, match="install that version"):
            again()
    with pytest.raises(NewerVersionError):
        made.table("training_log", ["step"])
    assert (made.folder / "training_log.parquet").read_bytes() == before

    other = store.records.add("training", "coat", made_of={"steps": 2}, **content)
    place = other.folder / "record.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"of_the_future": 1}))
    for again in (
        lambda: store.records.add("training", "coat", made_of={"steps": 2}, **content),
        lambda: store.records.find("training", "coat", other.key),
    ):
        with pytest.raises(NewerVersionError, match="has the field 'of_the_future', which a later version"):
            again()
    assert (other.folder / "weights.bin").exists()


def test_embeddings_that_the_system_does_not_let_be_read_are_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.features.add("coat", "encoder", "m", ["a"], np.eye(1, dtype=np.float32))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("fashion_pipeline.store.storage.parquet.pq.ParquetFile", refuse)
        with pytest.raises(StorageError, match=r"cannot be read \(Too many open files"):
            store.features.index("coat", "encoder", "m")
    assert store.features.index("coat", "encoder", "m").rows(["a"]).shape == (1, 1)


def test_of_changes_that_are_made_at_once_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Withdrawals, settings, choices and states: each file is read, changed and written by several at once."""
    store, count = Store(tmp_path), 6
    store.sources.register("coat", "coat", SourceSpec("/photos"))
    read = Path.read_text

    def slow(path: Path, *arguments: Any, **options: Any) -> str:
        text = read(path, *arguments, **options)
        time.sleep(0.02)  # somebody else writes between the reading and the writing
        return text

    def change(number: int) -> None:
        own = Store(tmp_path)
        row = {"id": f"photo {number}", "path": "a.png", "perceptual_hash": 1, "thumbnail": bytes(768)}
        own.withdrawals.add("coat", [row])
        own.preferences.change("retraining", f"style-{number}", new_photos=number + 1)
        own.sources.choose("coat", lambda known: known | {f"step {number}": {"a": 1}})
        own.sources.mark("coat", f"step {number}", "done")  # type: ignore[arg-type]
        own.sources.register("coat", f"coat {number}", SourceSpec("/photos"))

    monkeypatch.setattr(Path, "read_text", slow)
    threads = [threading.Thread(target=change, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(store.withdrawals.ids()) == [f"photo {number}" for number in range(count)]
    assert len(store.preferences.read().styles) == count
    assert len(store.sources.config("coat")) == count
    assert all(store.sources.done_with("coat", f"step {number}") for number in range(count))  # type: ignore[arg-type]
