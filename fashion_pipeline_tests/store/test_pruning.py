"""What may go, and what a version or the newest results need."""

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.store.errors import LockedError
from fashion_pipeline.store.pruning import leftovers, remove_leftovers
from fashion_pipeline.store.storage.files import freed, size
from fashion_pipeline.store.storage.locks import holding
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.store.planting import put_in_use


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two trainings of a style, the first one published; both have checkpoints, and there is an image nobody names."""
    store = Store(tmp_path / "data")
    store.sources.register("coat", "coat", SourceSpec("/photos"))
    for key in ("one", "two"):
        photos = store.records.add("catalog", "coat", made_of={"state": key})
        training = store.records.add("training", "coat", key=key, inputs={"catalog": photos}, files={"weights": key})
        (store.training_folder("coat", key) / "checkpoints").mkdir(parents=True)
        if key == "one":
            put_in_use(store, "coat", "one", training.folder, {}, store.records.ancestry(training))
    (store.training_folder("coat", "under way") / "checkpoints").mkdir(parents=True)
    given_up = store.training_folder("coat", "given up")
    given_up.mkdir()
    os.utime(given_up, (1, 1))
    store.samples.write("ab12", Image.new("RGB", (8, 8)))
    return store


def test_what_is_superseded_goes_and_the_newest_stays(store: Store) -> None:
    newest = store.records.latest("training", "coat")
    found = leftovers(store)
    assert remove_leftovers(store) == found
    assert store.records.all("training", "coat") == [newest]
    assert len(store.records.all("catalog", "coat")) == 1
    assert [path.name for path in (store.root / "work" / "training" / "coat").iterdir()] == ["under way"]
    assert not store.samples.all()
    assert leftovers(store) == []


def test_a_version_is_never_touched(store: Store) -> None:
    version = store.versions.champion("coat")
    before = sorted(path.relative_to(version) for path in version.rglob("*"))
    remove_leftovers(store)
    assert sorted(path.relative_to(version) for path in version.rglob("*")) == before
    assert store.versions.champion("coat") == version


def test_images_that_a_search_names_stay(store: Store) -> None:
    sample = {"id": "ab12", **dict.fromkeys(("model", "model_name", "prompt_name", "candidate", "prompt"), "x")}
    sample |= {"negative_prompt": "", "reference": "x", "product_group": "x", "split": "dev", "purpose": "dev"}
    sample |= {"seed": 1, "steps": 1, "guidance": 1.0, "width": 8, "height": 8}
    store.records.add("search", "coat", tables={"samples": [sample], "leaderboard": []})
    remove_leftovers(store)
    assert [path.stem for path in store.samples.all()] == ["ab12"]


def test_nothing_is_removed_while_a_style_is_being_run(store: Store) -> None:
    found = leftovers(store)
    with holding(store.locks.style("coat"), "style 'coat'", "run 7"), pytest.raises(LockedError, match="run 7"):
        remove_leftovers(store)
    assert leftovers(store) == found


def test_a_file_that_also_lies_elsewhere_gives_nothing_back(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"x" * 100)
    (tmp_path / "model" / "card").write_bytes(b"x" * 7)
    (tmp_path / "published").hardlink_to(tmp_path / "model" / "weights")
    assert (size(tmp_path / "model"), freed(tmp_path / "model")) == (107, 7)
    (tmp_path / "published").unlink()
    assert freed(tmp_path / "model") == 107


def test_what_a_killed_process_was_writing_goes_after_an_hour(store: Store) -> None:
    fresh, old = (store.root / "published" / "coat" / f".v2.0123abc{digit}" for digit in "45")
    for half in (fresh, old):
        half.mkdir()
        (half / "weights").write_bytes(b"x" * 100)
    os.utime(old, (1, 1))
    (store.root / "published" / "coat" / ".notes").write_text("not ours")
    found = [each for each in leftovers(store) if each.why == "given up"]
    assert [(each.path, each.size) for each in found] == [(old, 100)]
    remove_leftovers(store)
    assert fresh.exists() and not old.exists()


def test_what_a_run_made_while_somebody_looked_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends between the look of a command and its locks: its record and the pointer to it stay."""
    taking = store.files.alone

    def late(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "styles/coat":
            store.records.add("training", "coat", key="three", tables={"training_log": []})
            store.records.add("training", "coat", key="one", tables={"training_log": []})  # back to an earlier one
        return taking(name, *arguments, **options)

    store.sources.register("coat", "coat", SourceSpec("/photos"))
    monkeypatch.setattr(store.files, "alone", late)
    remove_leftovers(store)
    assert store.records.latest("training", "coat").key == "one"


def test_nothing_is_removed_while_a_style_that_is_new_is_catalogued(store: Store) -> None:
    with store.locks.one_catalog_at_a_time(), pytest.raises(LockedError, match="the catalog is in use"):
        remove_leftovers(store)
