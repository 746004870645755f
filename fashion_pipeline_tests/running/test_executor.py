"""A run can be cancelled also while it waits for its turn on the device."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from fashion_pipeline.running.executor import LEAST_SECONDS, LONGEST_SECONDS, _Slots, one_process

OTHER = "run-of-somebody-else"


@dg.op(pool="gpu")
def heavy() -> None:
    """Wants the device."""


@dg.job(executor_def=one_process)
def heavy_job() -> None:
    heavy()


@dg.op
def dull() -> None:
    time.sleep(20)


@dg.job(executor_def=one_process)
def dull_job() -> None:
    dull()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    pools = {"concurrency": {"pools": {"default_limit": 1, "granularity": "op"}}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=pools) as found:
        yield found


def cancel_after(instance: dg.DagsterInstance, seconds: float) -> None:
    """As the UI does it: the run is marked, then its process gets an interrupt."""

    def cancel() -> None:
        (run,) = instance.get_runs(limit=1)
        instance.report_run_canceling(run)
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(seconds, cancel)
    timer.daemon = True
    timer.start()


def status_after(instance: dg.DagsterInstance, job: dg.JobDefinition) -> tuple[dg.DagsterRunStatus, float]:
    began = time.monotonic()
    with contextlib.suppress(dg.DagsterExecutionInterruptedError):
        dg.execute_job(dg.reconstructable(job), instance=instance, raise_on_error=False)
    (run,) = instance.get_runs(limit=1)
    return run.status, time.monotonic() - began


def test_a_run_that_waits_for_the_pool_is_cancelled_at_once(instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage
    storage.set_concurrency_slots("gpu", 1)
    assert storage.claim_concurrency_slot("gpu", OTHER, "heavy").is_claimed
    cancel_after(instance, 2.0)
    status, seconds = status_after(instance, heavy_job)
    assert status == dg.DagsterRunStatus.CANCELED and seconds < 15
    (info,) = [storage.get_concurrency_info("gpu")]
    assert info.active_run_ids == {OTHER} and not info.pending_step_count


def test_a_run_that_works_is_cancelled_as_by_dagster(instance: dg.DagsterInstance) -> None:
    cancel_after(instance, 1.5)
    status, seconds = status_after(instance, dull_job)
    assert status == dg.DagsterRunStatus.CANCELED and seconds < 15


def test_a_run_that_nobody_disturbs_ends_well_and_leaves_the_interrupt_as_it_was(instance: dg.DagsterInstance) -> None:
    before = signal.getsignal(signal.SIGINT)
    status, _ = status_after(instance, heavy_job)
    assert status == dg.DagsterRunStatus.SUCCESS
    assert signal.getsignal(signal.SIGINT) == before


def test_a_run_that_waits_sleeps_between_two_looks_at_the_pool(instance: dg.DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots("gpu", 1)
    assert instance.event_log_storage.claim_concurrency_slot("gpu", OTHER, "heavy").is_claimed
    with _Slots(instance, dg.DagsterRun(job_name="heavy_job")) as slots:
        assert slots.interval_to_next_pending_claim_check() == 0.0
        for _ in range(30):  # Dagster asks ever more seldom
            slots._pending_timeouts.pop("heavy", None)
            slots._pending_claims.discard("heavy")
            assert not slots.claim("gpu", "heavy")
        assert LEAST_SECONDS <= slots.interval_to_next_pending_claim_check() <= LONGEST_SECONDS
