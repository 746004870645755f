"""What there is to see of daily operation: styles, runs, next ticks, and what takes room."""

import json
from pathlib import Path

import dagster as dg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from fashion_pipeline import api
from fashion_pipeline.cli import app
from fashion_pipeline.core.automation.preferences import Preferences, Retraining
from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.running.operation import runs, ticks
from fashion_pipeline.settings import Settings
from fashion_pipeline.stages.catalog.catalog import catalogue
from fashion_pipeline.store.store import Store
from fashion_pipeline.store.usage import SHARED, usage
from fashion_pipeline_tests.conftest import SAMPLES, assert_one_message
from fashion_pipeline_tests.store.planting import put_in_use


def add(instance: dg.DagsterInstance, job: str, style: str, status: dg.DagsterRunStatus) -> str:
    tags = {"dagster/partition": style, "reason": "24 new photos"}
    return instance.add_run(dg.DagsterRun(job_name=job, tags=tags, status=status)).run_id


def test_runs_under_way_are_listed_and_failures_until_a_later_run_made_them_good() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        mended = add(instance, "full_pipeline", "bag", dg.DagsterRunStatus.FAILURE)
        add(instance, "full_pipeline", "bag", dg.DagsterRunStatus.SUCCESS)
        add(instance, "full_pipeline", "coat", dg.DagsterRunStatus.SUCCESS)
        failed = add(instance, "full_pipeline", "coat", dg.DagsterRunStatus.FAILURE)
        other = add(instance, "catalog", "bag", dg.DagsterRunStatus.FAILURE)
        going = add(instance, "catalog", "hat", dg.DagsterRunStatus.STARTED)
        found = {run.run: run for run in runs(instance)}
    assert set(found) == {failed, other, going} and mended not in found
    assert (found[going].style, found[going].status, found[going].reason) == ("hat", "started", "24 new photos")


def test_what_ticks_next_is_known_once_it_is_switched_on(tmp_path: Path) -> None:
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.remote_origin import (
        RegisteredCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, ScheduleInstigatorData

    preferences = Preferences(retraining=Retraining(cron="0 3 * * 1", timezone="Europe/Paris"))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert {tick.name: tick.on for tick in ticks(instance, preferences)} == dict.fromkeys(
            ("retraining", "new_photos", "stale_assets", "failure_alerts", "verdict_alerts"), False
        )
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("fashion_pipeline"), "__repository__")
        origin = RemoteInstigatorOrigin(repository, "retraining")
        data = ScheduleInstigatorData("0 3 * * 1", 0.0)
        instance.add_instigator_state(InstigatorState(origin, InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, data))
        (retraining, *_) = ticks(instance, preferences)
    assert retraining.on and "T03:00" in retraining.next and retraining.next.endswith(("+01:00", "+02:00"))


def test_disk_use_is_told_by_style_and_table_and_a_linked_file_counts_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    weights = {"w.safetensors": b"\0" * 5000}
    training = store.records.add("training", "coat", key="v1", tables={"training_log": []}, files=weights)
    put_in_use(store, "coat", "v1", training.folder, {}, {})
    assert training.path("w.safetensors").stat().st_nlink == 2
    store.records.add("curation", "bag", tables={"training_pairs": []})
    (store.root / "images" / "ab").mkdir(parents=True)
    (store.root / "images" / "ab" / "abc.png").write_bytes(b"\0" * 300)
    found = {(row.style, row.what): row.bytes for row in usage(store)}
    assert found["coat", "versions"] >= 5000 > found["coat", "training"]
    assert found[SHARED, "images"] == 300 and ("bag", "curation") in found


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in Settings(tmp_path / "data", "embedded", "auto", "auto").environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "data"


def test_the_state_of_everything_is_one_command(root: Path, tmp_path: Path) -> None:
    store = Store(root)
    for style, source in (("coat", str(SAMPLES)), ("hat", str(tmp_path / "gone"))):
        store.sources.register(style, style, SourceSpec(source))
    catalogue(store, "coat")
    told = call("status", "--disk")
    assert told.exit_code == 0, told.output
    assert "never trained" in told.output and f"there is no {tmp_path / 'gone'}" in told.output
    assert "no run is under way" in told.output and "new_photos" in told.output and "catalog" in told.output
    found = json.loads(call("status", "--json").stdout)
    coat, hat = found["styles"]
    assert (coat["style"], coat["photos"], coat["problem"]) == ("coat", 160, "") and hat["problem"]
    assert {row["what"] for row in found["disk"]} >= {"catalog", "dagster"}


def test_pruning_says_what_it_would_free(root: Path) -> None:
    store = Store(root)
    for state in ("one", "two"):
        store.records.add("catalog", "coat", made_of={"state": state})
    dry = call("clean")
    assert "coat: catalog" in dry.output and "could free" in dry.output
    assert len(store.records.all("catalog", "coat")) == 2
    assert "freed" in call("clean", "--yes").output and len(store.records.all("catalog", "coat")) == 1
    assert call("clean", "--yes").output.strip() == "freed 0.0 MB"


def test_when_styles_are_retrained_is_shown_and_changed(root: Path) -> None:
    Store(root).sources.register("coat", "coat", SourceSpec("/photos"))
    assert "0 3 * * 1" in call("automation").stdout
    changed = call("automation", "--style", "coat", "--cron", "0 4 * * *", "--new-photos", "5")
    assert changed.exit_code == 0 and "0 4 * * *" in changed.stdout
    rules = {row["style"]: row for row in api.automation()}
    assert rules["coat"]["new_photos"] == 5 and rules["(all others)"]["new_photos"] == 20
    refused = call("automation", "--cron", "daily at three")
    assert_one_message(refused, "cron 'daily at three'")
    refused = call("automation", "--style", "coat", "--timezone", "Europe/Paris")
    assert_one_message(refused, "the time zone is that of all styles")


@pytest.mark.parametrize(
    "arguments", [("status",), ("ui", "--port", "0"), ("run", "--style", "coat", "--source", str(SAMPLES))]
)
def test_a_settings_file_with_a_mistake_is_named_before_dagster_trips_over_it(
    root: Path, arguments: tuple[str, ...]
) -> None:
    store = Store(root)
    store.preferences.change("retraining", cron="every monday")
    assert_one_message(call(*arguments), "cron 'every monday' in settings.toml is none")
    store.preferences.path.write_text("[retraining]\nnew_photos = -1\n")
    assert_one_message(call(*arguments), f"{store.preferences.path}: [retraining] new_photos is -1")
