"""What starts a run by itself: photos that arrive, and the week's end."""

import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from fashion_pipeline.core.listing import SourceSpec
from fashion_pipeline.definitions import defs
from fashion_pipeline.defs.schedules import weekly_retraining
from fashion_pipeline.defs.sensors import new_photos
from fashion_pipeline.resources.storage import Storage

Tick = Callable[[], dg.SensorResult]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(root=str(tmp_path / "data"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def tick(storage: Storage, instance: dg.DagsterInstance) -> Tick:
    def evaluate() -> dg.SensorResult:
        context = dg.build_sensor_context(instance=instance, resources={"storage": storage}, definitions=defs)
        result = new_photos(context)
        assert isinstance(result, dg.SensorResult)
        return result

    return evaluate


def add_photo(folder: Path, name: str = "a.png", size: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size)).save(folder / name)
    return folder / name


def asked(result: dg.SensorResult) -> list[str]:
    return [str(request.partition_key) for request in result.run_requests or []]


def keys(result: dg.SensorResult) -> dict[str, str]:
    return {str(request.partition_key): str(request.run_key) for request in result.run_requests or []}


def added(result: dg.SensorResult) -> list[str]:
    return [key for request in result.dynamic_partitions_requests or [] for key in request.partition_keys]


def raw(storage: Storage) -> Path:
    return Path(storage.root) / "raw"


def test_nothing_happens_while_there_are_no_photos(tick: Tick) -> None:
    result = tick()
    assert asked(result) == added(result) == [] and result.skip_reason is None


def test_a_new_folder_of_photos_becomes_a_style_with_one_run(tick: Tick, storage: Storage) -> None:
    add_photo(raw(storage) / "Rain Coat")
    add_photo(raw(storage) / "Rain Coat", "b.png")
    result = tick()
    assert asked(result) == added(result) == ["rain-coat"]
    assert storage.subject("rain-coat") == "rain coat"


def test_an_unchanged_style_is_not_run_again_and_a_changed_one_is(tick: Tick, storage: Storage) -> None:
    add_photo(raw(storage) / "coat")
    bag = add_photo(raw(storage) / "bag")
    first = keys(tick())
    assert keys(tick()) == first
    os.utime(bag, ns=(1, 1))
    second = keys(tick())
    assert second["bag"] != first["bag"] and second["coat"] == first["coat"]
    add_photo(raw(storage) / "coat", "b.png")
    assert keys(tick())["coat"] != first["coat"]


def test_photos_of_a_source_that_was_registered_are_noticed(tick: Tick, storage: Storage, tmp_path: Path) -> None:
    add_photo(tmp_path / "elsewhere" / "coat")
    storage.register("coat", "coat", SourceSpec(str(tmp_path / "elsewhere")))
    add_photo(tmp_path / "elsewhere" / "hat")
    assert asked(tick()) == ["coat", "hat"]


def test_an_unreadable_source_is_named_and_the_others_go_on(
    tick: Tick, storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    add_photo(elsewhere / "coat")
    storage.register("coat", "coat", SourceSpec(str(elsewhere)))
    shutil.rmtree(elsewhere)
    add_photo(raw(storage) / "bag")
    assert asked(tick()) == ["bag"]
    assert f"there is no {elsewhere}" in capsys.readouterr().err


def test_the_only_source_being_unreadable_is_why_the_tick_was_skipped(tick: Tick, storage: Storage) -> None:
    raw(storage).mkdir(parents=True)
    reason = tick().skip_reason
    assert "no photos in" in str(getattr(reason, "skip_message", reason))


def test_a_style_that_comes_from_two_places_is_named_and_the_others_go_on(
    tick: Tick, storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_photo(tmp_path / "elsewhere" / "coat")
    storage.register("coat", "coat", SourceSpec(str(tmp_path / "elsewhere")))
    add_photo(raw(storage) / "coat")
    assert asked(tick()) == ["coat"]
    assert f"already comes from {tmp_path / 'elsewhere'}" in capsys.readouterr().err


def test_every_week_each_style_is_run_once(tmp_path: Path) -> None:
    monday = datetime(2025, 1, 6, 3, tzinfo=UTC)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_dynamic_partitions("styles", ["bag", "coat"])
        with dg.build_schedule_context(instance=instance, scheduled_execution_time=monday) as context:
            requests = list(weekly_retraining(context))
    assert sorted(str(request.partition_key) for request in requests) == ["bag", "coat"]
    assert len({request.run_key for request in requests}) == 2
