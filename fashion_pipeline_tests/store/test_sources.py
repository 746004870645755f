"""Where photos come from, and what was chosen for a style."""

from pathlib import Path

import pytest

from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.store.planting import SOURCE


def test_a_registered_style_is_found_again(store: Store) -> None:
    store.sources.register("formal", "formal wear", SOURCE)
    assert store.sources.styles() == ["formal"]
    assert store.sources.source("formal") == SOURCE and store.sources.subject("formal") == "formal wear"


def test_a_source_inside_the_data_root_moves_with_it(store: Store, tmp_path: Path) -> None:
    store.sources.register("coat", "coat", SourceSpec(str(tmp_path / "data" / "raw")))
    (tmp_path / "data").rename(tmp_path / "moved")
    assert Store(tmp_path / "moved").sources.source("coat").path == str(tmp_path / "moved" / "raw")


def test_what_was_chosen_for_a_style_is_kept_when_its_photos_are_taken_in_again(store: Store) -> None:
    store.sources.register("coat", "coat", SOURCE)
    assert store.sources.run_config("coat") == {}
    store.sources.choose("coat", lambda known: {"lora_weights": {"steps": 30}})
    store.sources.register("coat", "coat", SOURCE)
    assert store.sources.run_config("coat") == {"ops": {"lora_weights": {"config": {"steps": 30}}}}


def test_a_style_nobody_registered_is_answered_with_those_that_are(store: Store) -> None:
    with pytest.raises(StorageError, match=r"'hat' is not in the catalog \(known: none yet\): .* --source"):
        store.sources.source("hat")
    store.sources.register("coat", "coat", SOURCE)
    with pytest.raises(StorageError, match=r"known: coat"):
        store.sources.subject("hat")


def test_a_damaged_registration_is_named(store: Store) -> None:
    store.sources.register("coat", "coat", SOURCE)
    for content in ("{half", "{}"):
        store.sources.path("coat").write_text(content)
        with pytest.raises(StorageError, match=r"coat\.json is damaged"):
            store.sources.source("coat")


def test_what_each_step_was_finished_with_is_remembered_apart_and_is_no_style(store: Store) -> None:
    store.sources.register("coat", "coat", SOURCE)
    assert store.sources.done_with("coat", "catalog") is store.sources.done_with("coat", "features") is None
    store.sources.mark("coat", "catalog", "abc")
    store.sources.mark("coat", "features", "def")
    assert [store.sources.done_with("coat", step) for step in ("catalog", "features")] == ["abc", "def"]
    assert store.sources.styles() == ["coat"]
