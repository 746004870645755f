"""Runs whose process is gone are buried, and those that live are left alone."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from fashion_pipeline.running import liveness
from fashion_pipeline.running.liveness import COMMAND, bury_dead_runs, ending_with_its_run, watching
from fashion_pipeline.settings import Settings, enter
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.storage import remote
from fashion_pipeline.store.storage.locks import holding
from fashion_pipeline.store.store import Store


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setattr(liveness, "SETTLE_SECONDS", 0.0)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def begun(instance: dg.DagsterInstance, status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED) -> str:
    run = instance.add_run(dg.DagsterRun(job_name="full_pipeline", status=status))
    return run.run_id


def leave_lock(store: Store, run: str, content: str = '{"who": "run"}') -> Path:
    """What a killed process leaves: a lock that nobody holds, with its name in it. One that ended empties it."""
    lock = store.locks.run(run)
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(content)
    return lock


def get(instance: dg.DagsterInstance, run: str) -> dg.DagsterRun:
    found = instance.get_run_by_id(run)
    assert found is not None
    return found


def status_of(instance: dg.DagsterInstance, run: str) -> dg.DagsterRunStatus:
    return get(instance, run).status


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
def test_a_run_whose_process_was_killed_is_failed_and_its_slot_freed(
    instance: dg.DagsterInstance, store: Store, status: dg.DagsterRunStatus
) -> None:
    run = begun(instance, status)
    leave_lock(store, run)
    storage = instance.event_log_storage
    storage.set_concurrency_slots("gpu", 1)
    assert storage.claim_concurrency_slot("gpu", run, "step").is_claimed
    assert bury_dead_runs(instance, store) == [run]
    assert status_of(instance, run) == dg.DagsterRunStatus.FAILURE
    assert storage.claim_concurrency_slot("gpu", "another", "step").is_claimed


def test_the_slot_of_a_run_that_dagster_has_marked_itself_is_freed(instance: dg.DagsterInstance, store: Store) -> None:
    ended, lives = begun(instance, dg.DagsterRunStatus.FAILURE), begun(instance)
    storage = instance.event_log_storage
    storage.set_concurrency_slots("gpu", 2)
    for run in (ended, lives):
        assert storage.claim_concurrency_slot("gpu", run, "step").is_claimed
    with holding(store.locks.run(lives), "a run", "run"):
        assert bury_dead_runs(instance, store) == []
        assert storage.get_concurrency_info("gpu").active_run_ids == {lives}


def test_a_run_that_lives_is_left_alone(instance: dg.DagsterInstance, store: Store) -> None:
    run = begun(instance)
    with holding(store.locks.run(run), "a run", "run"):
        assert bury_dead_runs(instance, store) == []
    assert status_of(instance, run) == dg.DagsterRunStatus.STARTED


def test_a_run_that_gave_its_lock_back_may_still_say_how_it_ended(
    instance: dg.DagsterInstance, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(instance)
    with holding(store.locks.run(run), "a run", "run"):
        pass
    assert bury_dead_runs(instance, store) == []
    later = time.time() + liveness.ENDING_SECONDS + 1
    monkeypatch.setattr(liveness.time, "time", lambda: later)
    assert bury_dead_runs(instance, store) == [run]


def test_locks_of_runs_that_are_over_are_removed(instance: dg.DagsterInstance, store: Store) -> None:
    ended, lives = begun(instance, dg.DagsterRunStatus.SUCCESS), begun(instance)
    over, unknown = leave_lock(store, ended, ""), leave_lock(store, "of-another-instance", "")
    with holding(store.locks.run(lives), "a run", "run"):
        bury_dead_runs(instance, store)
        assert not over.exists() and store.locks.runs() == sorted([store.locks.run(lives), unknown])
        os.utime(unknown, (1, 1))
        bury_dead_runs(instance, store)
        assert store.locks.runs() == [store.locks.run(lives)]


def test_a_run_that_is_starting_has_no_lock_yet(
    instance: dg.DagsterInstance, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(instance, dg.DagsterRunStatus.STARTING)
    assert bury_dead_runs(instance, store) == []
    later = time.time() + liveness.YOUNG_SECONDS + 60
    monkeypatch.setattr(liveness.time, "time", lambda: later)
    assert bury_dead_runs(instance, store) == [run]


def test_a_run_that_ends_between_two_looks_is_no_dead_one(
    instance: dg.DagsterInstance, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(instance)
    leave_lock(store, run)
    found = instance.get_run_by_id(run)
    monkeypatch.setattr(liveness.time, "sleep", lambda _: instance.report_run_canceled(found))
    assert bury_dead_runs(instance, store) == []
    assert status_of(instance, run) == dg.DagsterRunStatus.CANCELED


def test_runs_that_have_not_started_are_not_touched(instance: dg.DagsterInstance, store: Store) -> None:
    begun(instance, dg.DagsterRunStatus.NOT_STARTED)
    assert bury_dead_runs(instance, store) == []


def test_a_run_is_cancelled_when_its_command_is_gone_but_not_one_that_was_started_again_from_it(
    instance: dg.DagsterInstance, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "LOOK_SECONDS", 0.01)
    interrupted = threading.Event()
    monkeypatch.setattr(liveness, "interrupt_work", interrupted.set)
    first = instance.add_run(
        dg.DagsterRun(job_name="full_pipeline", status=dg.DagsterRunStatus.STARTED, tags={COMMAND: "gone"})
    )
    again = instance.add_run(
        dg.DagsterRun(
            job_name="full_pipeline",
            status=dg.DagsterRunStatus.STARTED,
            tags=first.tags,
            parent_run_id=first.run_id,
            root_run_id=first.run_id,
        )
    )
    with watching(instance, store, again):
        assert not interrupted.wait(0.3)
    with holding(store.locks.command("gone"), "this command", "a command"), watching(instance, store, first):
        assert not interrupted.wait(0.3)
    with watching(instance, store, first):
        assert interrupted.wait(10)
    assert status_of(instance, first.run_id) == dg.DagsterRunStatus.CANCELING
    assert status_of(instance, again.run_id) == dg.DagsterRunStatus.STARTED


def test_the_daemon_notices_a_killed_run_by_the_launcher_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "SETTLE_SECONDS", 0.0)
    settings = Settings(tmp_path / "data", "embedded", "auto", "auto")
    for name in settings.environment():
        monkeypatch.setenv(name, "")
    store = Store(enter(settings).data)
    with dg.DagsterInstance.get() as instance:
        killed, lives = begun(instance), begun(instance)
        leave_lock(store, killed)
        with holding(store.locks.run(lives), "a run", "run"):
            watched = SimpleNamespace(instance=instance, create_request_context=lambda: None)
            list(execute_run_monitoring_iteration(watched, logging.getLogger("tests")))  # type: ignore[arg-type]
            assert instance.run_launcher.check_run_worker_health(get(instance, lives)).status == WorkerStatus.RUNNING
        assert status_of(instance, killed) == dg.DagsterRunStatus.FAILURE
        assert status_of(instance, lives) == dg.DagsterRunStatus.STARTED


def test_a_run_of_another_machine_lives_as_long_as_it_says_so(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moto", reason="moto is not installed")
    from fashion_pipeline_tests.store.buckets import bucket, keys, machine

    monkeypatch.setattr(liveness, "YOUNG_ELSEWHERE_SECONDS", 0.0)
    with bucket():
        here, there = machine(tmp_path / "here"), machine(tmp_path / "there")
        run = begun(instance)
        with there.locks.running(run, "run"):
            assert here.locks.lives(run) and there.locks.lives(run)
            assert bury_dead_runs(instance, here) == []
        assert not here.locks.lives(run) and not keys("leases/runs")
        run = begun(instance)
        monkeypatch.setattr(remote, "LEASE_SECONDS", 2.0)
        assert there.files.remote is not None
        there.files.remote._take(f"runs/{run}", "run", "run", 0.0)  # a machine that is switched off
        assert here.locks.lives(run)
        time.sleep(3.1)
        assert run in bury_dead_runs(instance, here)


def test_a_step_in_a_pod_ends_when_the_process_of_its_run_is_gone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "LOOK_SECONDS", 0.05)
    interrupted = threading.Event()
    monkeypatch.setattr(liveness, "interrupt_work", interrupted.set)
    run = dg.DagsterRun(job_name="full_pipeline")
    with ExitStack() as held:
        held.enter_context(store.locks.running(run.run_id, "run"))
        with ending_with_its_run(store, run):
            assert not interrupted.wait(0.3)
            held.close()
            assert interrupted.wait(10)


def test_runs_that_another_launcher_started_are_left_to_it(tmp_path: Path, store: Store) -> None:
    of_another = {"module": "dagster._core.launcher.sync_in_memory_run_launcher", "class": "SyncInMemoryRunLauncher"}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"run_launcher": of_another}) as found:
        run = begun(found)
        leave_lock(store, run)
        assert bury_dead_runs(found, store) == [] and status_of(found, run) == dg.DagsterRunStatus.STARTED


def test_a_lease_that_was_late_once_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "LOOK_ELSEWHERE_SECONDS", 0.02)
    interrupted = threading.Event()
    monkeypatch.setattr(liveness, "interrupt_work", interrupted.set)
    run = dg.DagsterRun(job_name="full_pipeline")
    answers = [False, False, True] * 5

    def lives(_: str) -> bool:
        if answers and len(answers) % 4 == 0:
            answers.pop()
            raise StorageError("503")
        return answers.pop(0) if answers else True

    shared = SimpleNamespace(files=SimpleNamespace(remote="s3"), locks=SimpleNamespace(lives=lives))
    with ending_with_its_run(shared, run):  # type: ignore[arg-type]
        assert not interrupted.wait(1.0)
    assert not answers
    gone = SimpleNamespace(files=SimpleNamespace(remote="s3"), locks=SimpleNamespace(lives=lambda _: False))
    with ending_with_its_run(gone, run):  # type: ignore[arg-type]
        assert interrupted.wait(10)
