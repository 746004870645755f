"""Damaged files: what a run can make again it makes again, and one of them stops neither a query nor another style."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fashion_pipeline import api
from fashion_pipeline.api import running
from fashion_pipeline.core.names import LORA_WEIGHTS, PIPELINE, TRAINED_WEIGHTS
from fashion_pipeline.defs.automation.jobs import CATALOG, FINETUNING, PROMPTS
from fashion_pipeline.running.launching import _events
from fashion_pipeline.settings import Settings
from fashion_pipeline.stages.catalog.catalog import catalogue
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.storage.files import remove
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.conftest import SMALL, Chain, errors

Small = Callable[..., Chain]
SEARCH = {"ops": {"generated_samples": SMALL["ops"]["generated_samples"]}}


def file_of(store: Store, kind: str, style: str, name: str) -> Path:
    return store.records.latest(kind, style).path(name)


def cut(path: Path) -> bytes:
    """What was in a file of which a part is left."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return whole


@pytest.mark.thorough
def test_a_damaged_file_is_written_anew_by_the_next_run(small: Small) -> None:
    chain = small()
    assert chain.materialize((*CATALOG, *PROMPTS), "coat", SEARCH).success
    before = chain.store.records.latest("prompt_report", "coat").key
    for kind, name in (("catalog", "images.parquet"), ("catalog", "record.json"), ("features", "attributes.parquet")):
        path = file_of(chain.store, kind, "coat", name)
        whole = cut(path)
        result = chain.materialize((*CATALOG, *PROMPTS), "coat", SEARCH)
        assert result.success, errors(result)
        assert chain.store.records.latest("prompt_report", "coat").key == before
        if name != "record.json":  # it tells when it was written
            assert path.read_bytes() == whole, name


def turn_a_bit(path: Path) -> bytes:
    """What was in a file of which one bit is another one; other names of the file keep what they have."""
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    return whole


@pytest.mark.thorough
def test_weights_of_which_a_bit_has_turned_are_trained_and_exported_again(small: Small) -> None:
    chain = small()
    knobs = {"ops": {"lora_weights": {"config": {"steps": 2}}}}
    assert chain.materialize((*CATALOG, *FINETUNING[:3]), "coat", knobs).success
    store = chain.store
    weights, alone = (
        file_of(store, "training", "coat", TRAINED_WEIGHTS),
        file_of(store, "training", "coat", LORA_WEIGHTS),
    )
    (unet,) = file_of(store, "model", "coat", PIPELINE).glob("unet/*.safetensors")
    for path in (weights, alone, unet):
        whole = turn_a_bit(path)
        if path == alone:  # then nothing is left of the training but its record
            remove(store.training_folder("coat", store.records.latest("training", "coat").key))
        result = chain.materialize(FINETUNING[1:3], "coat", knobs)
        assert result.success, errors(result)
        assert path.read_bytes() == whole


@pytest.mark.thorough
def test_a_training_whose_record_cannot_be_read_is_taken_from_what_it_left(small: Small) -> None:
    chain = small()
    knobs = {"ops": {"lora_weights": {"config": {"steps": 2}}}}
    assert chain.materialize((*CATALOG, *FINETUNING[:2]), "coat", knobs).success
    key = chain.store.records.latest("training", "coat").key
    cut(file_of(chain.store, "training", "coat", "record.json"))
    result = chain.materialize(FINETUNING[1:2], "coat", knobs)
    assert result.success, errors(result)
    assert chain.store.records.latest("training", "coat").key == key


@pytest.mark.parametrize("content", ["{", '{"k": 1}'])
def test_a_damaged_pointer_is_written_anew_by_the_next_run(small: Small, content: str) -> None:
    chain = small()
    key = catalogue(chain.store, "coat").record.key
    pointer = chain.store.records._pointer("catalog", "coat")
    pointer.write_text(content)
    with pytest.raises(StorageError, match=r"latest\.json is damaged: materialise raw_images of 'coat' again"):
        chain.store.records.latest("catalog", "coat")
    assert catalogue(chain.store, "coat").record.key == key
    assert chain.store.records.latest("catalog", "coat").key == key


@pytest.mark.thorough
def test_a_damaged_neighbour_is_told_and_left_out(small: Small) -> None:
    chain = small(20, "bag")
    for style in ("coat", "bag"):
        assert chain.materialize(CATALOG, style).success
    path = file_of(chain.store, "catalog", "bag", "images.parquet")
    cut(path)
    told: list[str] = []
    catalogue(chain.store, "coat", tell=told.append)
    assert told and all(text.startswith(f"the catalog of 'bag' is left out: {path} is damaged") for text in told)
    result = chain.materialize((*CATALOG, *PROMPTS), "coat", SEARCH)
    assert result.success, errors(result)


def test_a_damaged_neighbour_is_described_again_before_a_run(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = small(20, "bag")
    assert chain.materialize(CATALOG, "bag").success
    chain.store.sources.mark("bag", "features", "now")
    assert running._is_described(chain.store, "bag", "now")
    assert not running._is_described(chain.store, "bag", "later")
    cut(file_of(chain.store, "features", "bag", "attributes.parquet"))
    assert not running._is_described(chain.store, "bag", "now")


def test_queries_and_the_list_of_styles_go_on_without_damaged_files(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = small(12, "bag", "dress")
    for style in ("coat", "bag", "dress"):
        catalogue(chain.store, style)
    damaged = [
        file_of(chain.store, "catalog", "bag", "images.parquet"),
        file_of(chain.store, "catalog", "dress", "record.json"),
    ]
    for path in damaged:
        cut(path)
    for name, value in Settings(chain.store.root, "embedded", "auto", "auto").environment().items():
        monkeypatch.setenv(name, value)
    told: list[str] = []
    assert api.sql("SELECT style, count(*) AS n FROM images GROUP BY ALL", told.append).to_pylist() == [
        {"style": "coat", "n": 12}
    ]
    assert api.sql("SELECT DISTINCT style FROM images_history", lambda text: None).to_pylist() == [{"style": "coat"}]
    for path in damaged:
        assert sum(str(path) in text for text in told) == 1
    told.clear()
    rows = {row["style"]: row for row in api.styles(told.append)}
    assert rows["coat"]["photos"] == 12 and rows["coat"]["rejects"] == 0
    assert rows["bag"]["photos"] is None and rows["dress"]["photos"] is None
    assert all(any(str(path) in text for text in told) for path in damaged)


# What a run says of an error


def failure(error: SimpleNamespace) -> str:
    event = SimpleNamespace(event_type_value="STEP_FAILURE", step_failure_data=SimpleNamespace(error=error))
    ((_, text),) = [(e.kind, e.text) for e in _events(SimpleNamespace(step_key="raw_images", dagster_event=event), str)]  # type: ignore[arg-type]
    return text


def error_of(message: str, cause: SimpleNamespace | None = None) -> SimpleNamespace:
    return SimpleNamespace(message=message, cls_name=message.strip().partition(":")[0].split(".")[-1], cause=cause)


def test_the_sentence_that_names_file_and_mend_is_told_not_what_caused_it() -> None:
    library = error_of("pyarrow.lib.ArrowInvalid: Parquet magic bytes not found in footer.\n")
    ours = error_of("fashion_pipeline.store.errors.StorageError: a.parquet is damaged: write it again\n", library)
    wrapped = error_of("dagster._core.errors.DagsterExecutionStepExecutionError: Error occurred:\n", ours)
    assert failure(wrapped) == "a.parquet is damaged: write it again"


def test_an_error_that_was_not_written_for_people_keeps_its_class_but_not_its_path() -> None:
    assert failure(error_of("pyarrow.lib.ArrowInvalid: no footer\n")) == "ArrowInvalid: no footer"
    assert failure(error_of("OSError: [Errno 28] No space left on device: 'x'")) == (
        "OSError: [Errno 28] No space left on device: 'x'"
    )
    assert failure(error_of("ValueError: rank is 0\n")) == "rank is 0"
    assert failure(error_of("KeyboardInterrupt\n")) == "KeyboardInterrupt"
