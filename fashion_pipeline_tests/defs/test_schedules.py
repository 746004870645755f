"""What starts a run by itself at the times of the schedule."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from fashion_pipeline import api
from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.defs.automation.schedules import is_due, retraining, scheduled_runs
from fashion_pipeline.running.runs import REASON
from fashion_pipeline.settings import SettingsError
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.storage.locks import holding
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.defs.planting import add_photo, register, take_in, train


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


MONDAY = datetime(2025, 1, 6, 3, tzinfo=UTC)


def scheduled(store: Store, *listed: str, at: datetime = MONDAY) -> list[dg.RunRequest | dg.SkipReason]:
    home = Path(tempfile.mkdtemp(dir=store.root))
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        instance.add_dynamic_partitions("styles", list(listed))
        with dg.build_schedule_context(instance=instance, scheduled_execution_time=at) as context:
            return list(scheduled_runs(context, store, Models("embedded")))


def test_the_schedule_retrains_what_has_a_reason_and_says_why_the_others_have_none(store: Store) -> None:
    register(store, "bag", "coat", "dress")
    for style in ("bag", "coat", "dress"):
        take_in(store, style, 20)
        train(store, style)
    take_in(store, "coat", 21)
    store.sources.choose("dress", lambda known: {"lora_weights": {"steps": 30}})
    coat, dress = scheduled(store, "bag", "coat", "dress")
    assert (coat.partition_key, coat.tags[REASON]) == ("coat", "on schedule: 1 new photo")
    assert (dress.partition_key, dress.tags[REASON]) == ("dress", "on schedule: 0 new photos, other settings")
    assert dress.run_config == {"ops": {"lora_weights": {"config": {"steps": 30}}}}
    assert coat.run_key != dress.run_key
    (skipped,) = scheduled(store, "bag")
    assert skipped.skip_message == "bag: photos, profile and settings are those of the last training"


def test_photos_that_nobody_has_taken_in_are_a_reason_for_the_schedule(store: Store) -> None:
    register(store, "coat")
    take_in(store, "coat", 20)
    train(store, "coat")
    add_photo(store.raw_folder / "coat", "late.png")
    (request,) = scheduled(store, "coat")
    assert "photos that were not taken in yet" in request.tags[REASON]


def test_each_style_has_its_own_times(store: Store) -> None:
    register(store, "bag", "coat", "dress")
    store.preferences.change("retraining", timezone="Europe/Paris")
    store.preferences.change("retraining", "coat", cron="0 4 * * *")
    store.preferences.change("retraining", "bag", cron="")
    due = {
        hour: [r.partition_key for r in scheduled(store, "bag", "coat", "dress", at=at) if isinstance(r, dg.RunRequest)]
        for hour in (2, 3)
        if (at := MONDAY.replace(hour=hour))
    }
    assert due == {2: ["dress"], 3: ["coat"]}  # 03:00 and 04:00 in Paris
    assert retraining(store.preferences.read())[0].cron_schedule == ["0 3 * * 1", "0 4 * * *"]


def test_without_any_cron_there_is_no_schedule(store: Store) -> None:
    store.preferences.change("retraining", cron="")
    assert retraining(store.preferences.read()) == []


def test_a_cron_that_is_none_is_refused_before_it_is_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_PIPELINE_DATA", str(store.root))
    with pytest.raises(SettingsError, match=r"cron 'every day' in settings\.toml is none"):
        api.automate(cron="every day")
    assert not store.preferences.path.exists()
    store.preferences.change("retraining", cron="61 * * * *")
    with pytest.raises(SettingsError, match="cron '61"):
        retraining(store.preferences.read())


def test_a_style_that_is_being_run_is_not_retrained_by_the_schedule(store: Store) -> None:
    register(store, "coat")
    with holding(store.locks.style("coat"), "style 'coat'", "run 7"):
        (skipped,) = scheduled(store, "coat")
    assert "coat: in use by run 7" in skipped.skip_message


def test_a_partition_without_photos_does_not_break_the_schedule(store: Store) -> None:
    register(store, "coat")
    (request,) = scheduled(store, "hat", "coat")
    assert request.partition_key == "coat"
    (skipped,) = scheduled(store, "hat")
    assert "'hat' was added in the UI" in skipped.skip_message


def test_a_source_that_has_gone_does_not_break_the_schedule(store: Store, tmp_path: Path) -> None:
    register(store, "coat")
    store.sources.register("bag", "bag", SourceSpec(str(tmp_path / "gone")))
    (request,) = scheduled(store, "bag", "coat")
    assert request.partition_key == "coat"


DAILY = ("0 3 * * *", "30 2 * * *", "0 2 * * *", "15 1 * * *", "0 0 * * *", "45 23 * * *")
WEEKLY = ("0 3 * * 0", "30 2 * * 0", "0 3 * * 1")


@pytest.mark.parametrize("timezone", ["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "UTC"])
def test_each_due_time_fires_once_also_over_the_gap_and_the_fold_of_a_year(timezone: str) -> None:
    crons, zone = [*DAILY, *WEEKLY], ZoneInfo(timezone)
    begin, end = (datetime(year, 1, 1, tzinfo=zone).timestamp() for year in (2027, 2028))
    fired: dict[str, list[datetime]] = {cron: [] for cron in crons}
    last = None
    for tick in schedule_execution_time_iterator(begin, crons, timezone):
        if tick.timestamp() >= end:
            break
        if tick.timestamp() == last:
            continue  # two crons at one time are one tick
        last = tick.timestamp()
        for cron in crons:
            if is_due(cron, tick, timezone):
                fired[cron].append(tick)
    for cron, times in fired.items():
        days = [time.astimezone(zone).date() for time in times]
        assert len(days) == len(set(days)) == (365 if cron in DAILY else 52), (cron, len(days), len(set(days)))


def test_a_run_is_not_lost_on_the_day_that_summer_time_begins(store: Store) -> None:
    register(store, "coat")
    store.preferences.change("retraining", timezone="Europe/Paris", cron="0 3 * * *")
    at = datetime(2027, 3, 28, 3, tzinfo=ZoneInfo("Europe/Paris"))
    (request,) = scheduled(store, "coat", at=at)
    assert isinstance(request, dg.RunRequest) and request.partition_key == "coat"
