"""What starts a run by itself when photos arrive."""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.definitions import defs
from fashion_pipeline.defs.automation.sensors import CAUSE, TRIES, new_photos
from fashion_pipeline.running.runs import REASON, UNDER_WAY
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.storage.locks import holding
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.defs.planting import add_photo, register, take_in, train


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
        self.models = Models("embedded")

    def __call__(self) -> dg.SensorResult:
        resources = {"store": self.store, "models": self.models}
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=resources, definitions=defs
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


def asked(result: dg.SensorResult) -> list[str]:
    """Style and job of each run that was asked for."""
    return [f"{request.partition_key} {request.job_name}" for request in result.run_requests or []]


def why(result: dg.SensorResult) -> str:
    return str(getattr(result.skip_reason, "skip_message", result.skip_reason))


def add_run(instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus) -> None:
    tags = {**request.tags, "dagster/partition": str(request.partition_key)}
    instance.add_run(dg.DagsterRun(job_name=str(request.job_name), tags=tags, status=status))


def test_an_idle_tick_says_that_there_are_no_photos(fresh: Sensor) -> None:
    assert why(fresh()) == "there are no photos yet"


def test_switching_the_sensor_on_catalogues_what_was_there_and_trains_nothing(fresh: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "Rain Coat")
    first = fresh()
    assert asked(first) == [] and "1 styles taken as known" in why(first)
    assert fresh.instance.get_dynamic_partitions("styles") == ["rain-coat"]
    assert asked(fresh()) == ["rain-coat catalog"]
    take_in(store, "rain-coat", 36)
    assert why(fresh()) == "rain-coat: 36 photos, never trained: waits for 20 new photos or a run by hand"
    take_in(store, "rain-coat", 56)
    assert asked(fresh()) == ["rain-coat full_pipeline"]
    assert store.sources.subject("rain-coat") == "rain coat"


@pytest.mark.parametrize("seed", range(20))
def test_a_folder_is_catalogued_whenever_it_comes(fresh: Sensor, store: Store, seed: int) -> None:
    chance = random.Random(seed)
    arrivals = sorted(chance.randrange(5) for _ in range(chance.randint(1, 4)))
    asked_for = []
    for moment in range(arrivals[-1] + 3):
        for place in range(arrivals.count(moment)):
            add_photo(store.raw_folder / "coat", f"{moment}-{place}.png")
        asked_for.append(asked(fresh()))
    assert asked_for[arrivals[-1] + 1] == ["coat catalog"], asked_for
    assert all(tick in ([], ["coat catalog"]) for tick in asked_for)


def test_a_partition_that_was_deleted_in_the_ui_stays_away_until_somebody_runs_it(tick: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    tick.instance.delete_dynamic_partition("styles", "coat")
    for _ in range(3):
        left_out = tick()
        assert asked(left_out) == [] and "coat: its partition was deleted in the UI" in why(left_out)
        assert tick.instance.get_dynamic_partitions("styles") == []
    tick.instance.add_dynamic_partitions("styles", ["coat"])
    assert asked(tick()) == ["coat catalog"]


def test_a_style_that_was_removed_does_not_come_back_because_its_photos_are_there(tick: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    store.forget("coat")
    tick.instance.delete_dynamic_partition("styles", "coat")
    add_photo(store.raw_folder / "coat", "b.png")
    for _ in range(3):
        assert asked(tick()) == [] and store.sources.styles() == []
    store.sources.welcome("coat")
    tick.instance.add_dynamic_partitions("styles", ["coat"])
    tick()
    assert asked(tick()) == ["coat catalog"] and store.sources.styles() == ["coat"]


def test_switching_it_on_trains_no_style_that_was_only_described(fresh: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "coat")
    register(store, "coat")
    take_in(store, "coat", 60)
    assert asked(fresh()) == asked(fresh()) == []
    take_in(store, "coat", 79)
    assert "19 new photos; it takes 20 new photos" in why(fresh())
    take_in(store, "coat", 80)
    assert asked(fresh()) == ["coat full_pipeline"]


def test_a_style_is_not_trained_because_its_earlier_catalog_was_cleaned_away(fresh: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "coat")
    register(store, "coat")
    before = take_in(store, "coat", 60)
    fresh()
    take_in(store, "coat", 61)
    shutil.rmtree(before.folder)
    assert asked(fresh()) == []
    take_in(store, "coat", 81)
    assert asked(fresh()) == ["coat full_pipeline"]


def test_switching_it_on_catches_up_with_photos_that_came_since_a_training(fresh: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "coat")
    register(store, "coat")
    take_in(store, "coat", 60)
    train(store, "coat")
    assert asked(fresh()) == [] and "coat: no new photos" in why(fresh())
    switched_on_later = Sensor(store, fresh.instance)
    take_in(store, "coat", 85)
    assert asked(switched_on_later()) == ["coat full_pipeline"]


def test_a_new_folder_of_photos_becomes_a_style_that_is_taken_in_once_it_has_come_to_rest(
    tick: Sensor, store: Store
) -> None:
    add_photo(store.raw_folder / "Rain Coat")
    arriving = tick()
    assert asked(arriving) == [] and "rain-coat: photos are arriving" in why(arriving)
    add_photo(store.raw_folder / "Rain Coat", "b.png")
    assert asked(tick()) == []
    assert asked(tick()) == ["rain-coat catalog"]
    assert asked(tick()) == []


def test_a_new_style_is_trained_once_enough_of_its_photos_were_taken_in(tick: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    assert asked(tick()) == ["coat catalog"]
    take_in(store, "coat", 19)
    assert "coat: 19 new photos; it takes 20 new photos" in why(tick())
    take_in(store, "coat", 20)
    (request,) = tick().run_requests or []
    assert request.job_name == "full_pipeline"
    assert request.tags[REASON].startswith("first training, on 20 photos; about 6 products held out for the verdict")
    assert asked(tick()) == []
    train(store, "coat")
    assert "coat: no new photos" in why(tick())


def test_how_many_photos_are_enough_is_the_styles_own(tick: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    tick()
    take_in(store, "coat", 12)
    assert asked(tick()) == []
    store.preferences.change("retraining", "coat", new_photos=12)
    assert asked(tick()) == ["coat full_pipeline"]


def test_an_unchanged_style_is_not_taken_in_again_and_a_changed_one_is(tick: Sensor, store: Store) -> None:
    bag = add_photo(store.raw_folder / "bag")
    add_photo(store.raw_folder / "coat")
    tick()
    assert asked(tick()) == ["bag catalog", "coat catalog"]
    os.utime(bag, ns=(1, 1))
    tick()
    assert asked(tick()) == ["bag catalog"]
    add_photo(store.raw_folder / "coat", "b.png")
    tick()
    assert asked(tick()) == ["coat catalog"]


def test_two_runs_for_the_same_photos_have_two_keys(tick: Sensor, store: Store) -> None:
    keys = []
    path = add_photo(store.raw_folder / "bag")
    before = path.stat().st_mtime_ns
    for time in (before, 1, before):
        os.utime(path, ns=(time, time))
        tick()
        keys += [request.run_key for request in tick().run_requests or []]
    assert len(set(keys)) == len(keys) == 3


def test_a_style_that_is_being_run_is_left_alone(tick: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    with holding(store.locks.style("coat"), "style 'coat'", "run 7 of the terminal"):
        assert "coat: in use by run 7 of the terminal" in why(tick())
    assert asked(tick()) == ["coat catalog"]


@pytest.mark.parametrize("status", [status for status in UNDER_WAY if status != dg.DagsterRunStatus.QUEUED])
def test_a_style_never_has_two_runs(
    tick: Sensor, store: Store, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    (request,) = tick().run_requests or []
    add_run(instance, request, status)
    take_in(store, "coat", 40)
    held_back = tick()
    assert asked(held_back) == [] and f"of job catalog is {status.value.lower()}" in why(held_back)


@pytest.mark.parametrize("job", ["catalog", "full_pipeline"])
def test_a_run_that_failed_is_tried_again_but_not_for_ever(
    tick: Sensor, store: Store, instance: dg.DagsterInstance, job: str
) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    if job == "full_pipeline":
        tick()
        take_in(store, "coat", 40)
    tries = 0
    while requests := tick().run_requests:
        tries += 1
        assert requests[0].job_name == job and requests[0].tags[CAUSE]
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


def test_a_retraining_is_asked_for_with_the_configuration_that_the_user_chose(tick: Sensor, store: Store) -> None:
    add_photo(store.raw_folder / "coat")
    tick()
    store.sources.choose("coat", lambda known: {"lora_weights": {"steps": 30}})
    (request,) = tick().run_requests or []
    assert request.run_config == {}
    take_in(store, "coat", 40)
    (request,) = tick().run_requests or []
    assert request.run_config == {"ops": {"lora_weights": {"config": {"steps": 30}}}}


def test_a_damaged_style_is_named_and_the_others_go_on(tick: Sensor, store: Store) -> None:
    for style in ("bag", "coat"):
        add_photo(store.raw_folder / style)
    tick()
    tick()
    for style in ("bag", "coat"):
        take_in(store, style, 40)
    (store.records.latest("catalog", "bag").folder / "record.json").write_text("{")
    assert asked(tick()) == ["coat full_pipeline"]


def test_photos_of_a_source_that_was_registered_are_noticed(tick: Sensor, store: Store, tmp_path: Path) -> None:
    add_photo(tmp_path / "elsewhere" / "coat")
    store.sources.register("coat", "coat", SourceSpec(str(tmp_path / "elsewhere")))
    add_photo(tmp_path / "elsewhere" / "hat")
    tick()
    assert asked(tick()) == ["coat catalog", "hat catalog"]


def test_an_unreadable_source_is_named_and_the_others_go_on(
    tick: Sensor, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    add_photo(elsewhere / "coat")
    store.sources.register("coat", "coat", SourceSpec(str(elsewhere)))
    shutil.rmtree(elsewhere)
    add_photo(store.raw_folder / "bag")
    assert f"there is no {elsewhere}" in why(tick())
    assert asked(tick()) == ["bag catalog"]
    assert f"there is no {elsewhere}" in capsys.readouterr().err


def test_a_style_that_comes_from_two_places_is_named_and_the_others_go_on(
    tick: Sensor, store: Store, tmp_path: Path
) -> None:
    add_photo(tmp_path / "elsewhere" / "coat")
    store.sources.register("coat", "coat", SourceSpec(str(tmp_path / "elsewhere")))
    add_photo(store.raw_folder / "coat")
    assert f"already comes from {tmp_path / 'elsewhere'}" in why(tick())
    assert asked(tick()) == ["coat catalog"]


def test_a_partition_added_by_hand_without_photos_is_named(tick: Sensor, instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("styles", ["hat"])
    assert "'hat' was added in the UI, but no source has photos of it" in why(tick())
