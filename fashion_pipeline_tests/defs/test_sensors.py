"""What starts a run by itself: photos that arrive, and the week's end."""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from fashion_pipeline.core.catalog.listing import SourceSpec, listing_state
from fashion_pipeline.core.catalog.sources import read_source
from fashion_pipeline.definitions import defs
from fashion_pipeline.defs.schedules import weekly_retraining
from fashion_pipeline.defs.sensors import PHOTOS, TRIES, new_photos
from fashion_pipeline.store.locks import holding
from fashion_pipeline.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


class Sensor:
    """The sensor as the daemon drives it: each tick gets the cursor of the one before; partitions are added."""

    def __init__(self, store: Store, instance: dg.DagsterInstance) -> None:
        self.store, self.instance, self.cursor = store, instance, None

    def __call__(self) -> dg.SensorResult:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"store": self.store}, definitions=defs
        )
        result = new_photos(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for request in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions("styles", list(request.partition_keys))
        return result


@pytest.fixture
def fresh(store: Store, instance: dg.DagsterInstance) -> Sensor:
    """A sensor that was just switched on."""
    return Sensor(store, instance)


@pytest.fixture
def tick(fresh: Sensor) -> Sensor:
    """A sensor that was switched on before any photo was there."""
    fresh()
    return fresh


def add_photo(folder: Path, name: str = "a.png", size: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size)).save(folder / name)
    return folder / name


def asked(result: dg.SensorResult) -> list[str]:
    return [str(request.partition_key) for request in result.run_requests or []]


def why(result: dg.SensorResult) -> str:
    return str(getattr(result.skip_reason, "skip_message", result.skip_reason))


def add_run(instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus) -> None:
    tags = {**request.tags, "dagster/partition": str(request.partition_key)}
    instance.add_run(dg.DagsterRun(job_name="full_pipeline", tags=tags, status=status))


def test_an_idle_tick_says_that_there_are_no_photos(fresh: Sensor) -> None:
    assert why(fresh()) == "there are no photos yet"


def test_switching_the_sensor_on_runs_nothing_that_was_there(fresh: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "Rain Coat")
    first = fresh()
    assert asked(first) == [] and "1 styles taken as known" in why(first)
    assert fresh.instance.get_dynamic_partitions("styles") == ["rain-coat"]
    assert asked(fresh()) == [] and why(fresh()) == "rain-coat: unchanged"
    assert store.sources.subject("rain-coat") == "rain coat"


def test_a_new_folder_of_photos_becomes_a_style_with_one_run_once_it_has_come_to_rest(
    tick: Sensor, store: Store
) -> None:
    add_photo(store.raw_folder / "Rain Coat")
    arriving = tick()
    assert asked(arriving) == [] and "rain-coat: photos are arriving" in why(arriving)
    add_photo(store.raw_folder / "Rain Coat", "b.png")
    assert asked(tick()) == []
    assert asked(tick()) == ["rain-coat"]
    assert asked(tick()) == []


def test_an_unchanged_style_is_not_run_again_and_a_changed_one_is(tick: Sensor, store: Store) -> None:
    bag = add_photo(store.raw_folder / "bag")
    add_photo(store.raw_folder / "coat")
    tick()
    assert asked(tick()) == ["bag", "coat"]
    os.utime(bag, ns=(1, 1))
    tick()
    assert asked(tick()) == ["bag"]
    add_photo(store.raw_folder / "coat", "b.png")
    tick()
    assert asked(tick()) == ["coat"]


def test_two_runs_for_the_same_photos_have_two_keys(tick: Sensor, store: Store) -> None:
    keys = []
    path = add_photo(store.raw_folder / "bag")
    before = path.stat().st_mtime_ns
    for time in (before, 1, before):
        os.utime(path, ns=(time, time))
        tick()
        keys += [request.run_key for request in tick().run_requests or []]
    assert len(set(keys)) == len(keys) == 3


def test_a_style_that_the_command_has_just_run_is_not_run_again(tick: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    state = listing_state(read_source(SourceSpec(str(store.raw_folder))).of("coat").entries)
    store.sources.mark("coat", state, ran=True)
    result = tick()
    assert asked(result) == [] and "has been run with these photos already" in why(result)


def test_a_style_that_is_being_run_is_left_alone(tick: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    with holding(store.style_lock("coat"), "style 'coat'", "run 7 of the terminal"):
        assert "coat: in use by run 7 of the terminal" in why(tick())
    assert asked(tick()) == ["coat"]


def test_a_run_that_failed_is_tried_again_but_not_for_ever(
    tick: Sensor, store: Store, instance: dg.DagsterInstance
) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    tries = 0
    while requests := tick().run_requests:
        tries += 1
        assert requests[0].tags[PHOTOS]
        add_run(instance, requests[0], dg.DagsterRunStatus.FAILURE)
    assert tries == TRIES


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS])
def test_a_run_that_a_person_cancelled_is_not_tried_again(
    tick: Sensor, store: Store, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    (request,) = tick().run_requests or []
    add_run(instance, request, status)
    assert asked(tick()) == []


def test_a_run_is_asked_for_with_the_configuration_that_the_user_chose(tick: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    store.sources.choose("coat", {"lora_weights": {"steps": 30}})
    (request,) = tick().run_requests or []
    assert request.run_config == {"ops": {"lora_weights": {"config": {"steps": 30}}}}


def test_photos_of_a_source_that_was_registered_are_noticed(tick: Sensor, store: Store, tmp_path: Path) -> None:
    add_photo(tmp_path / "elsewhere" / "coat")
    store.sources.register("coat", "coat", SourceSpec(str(tmp_path / "elsewhere")))
    add_photo(tmp_path / "elsewhere" / "hat")
    tick()
    assert asked(tick()) == ["coat", "hat"]


def test_an_unreadable_source_is_named_and_the_others_go_on(
    tick: Sensor, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    add_photo(elsewhere / "coat")
    store.sources.register("coat", "coat", SourceSpec(str(elsewhere)))
    shutil.rmtree(elsewhere)
    add_photo(store.raw_folder / "bag")
    assert f"there is no {elsewhere}" in why(tick())
    assert asked(tick()) == ["bag"]
    assert f"there is no {elsewhere}" in capsys.readouterr().err


def test_a_style_that_comes_from_two_places_is_named_and_the_others_go_on(
    tick: Sensor, store: Store, tmp_path: Path
) -> None:
    add_photo(tmp_path / "elsewhere" / "coat")
    store.sources.register("coat", "coat", SourceSpec(str(tmp_path / "elsewhere")))
    add_photo(store.raw_folder / "coat")
    assert f"already comes from {tmp_path / 'elsewhere'}" in why(tick())
    assert asked(tick()) == ["coat"]


def test_a_partition_added_by_hand_without_photos_is_named(tick: Sensor, instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("styles", ["hat"])
    assert "'hat' was added in the UI, but no source has photos of it" in why(tick())


def weekly(store: Store, *styles: str) -> list[dg.RunRequest | dg.SkipReason]:
    monday = datetime(2025, 1, 6, 3, tzinfo=UTC)
    home = store.root / "-".join(("home", *styles))
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        instance.add_dynamic_partitions("styles", list(styles))
        with dg.build_schedule_context(
            instance=instance, scheduled_execution_time=monday, resources={"store": store}
        ) as context:
            return list(weekly_retraining(context))


def test_every_week_each_style_is_run_once_as_its_user_chose(store: Store) -> None:
    for style in ("bag", "coat"):
        store.sources.register(style, style, SourceSpec("/photos"))
    store.sources.choose("coat", {"lora_weights": {"steps": 30}})
    requests = weekly(store, "bag", "coat")
    assert [request.partition_key for request in requests] == ["bag", "coat"]
    assert len({request.run_key for request in requests}) == 2
    assert [request.run_config for request in requests] == [
        {},
        {"ops": {"lora_weights": {"config": {"steps": 30}}}},
    ]


def test_a_partition_without_photos_does_not_break_the_schedule(store: Store) -> None:
    store.sources.register("coat", "coat", SourceSpec("/photos"))
    (request,) = weekly(store, "hat", "coat")
    assert request.partition_key == "coat"
    (skipped,) = weekly(store, "hat")
    assert "'hat' was added in the UI" in skipped.skip_message
