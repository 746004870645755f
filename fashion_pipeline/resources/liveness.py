"""Runs whose process is gone: after a power cut or kill -9 nobody else marks them as failed and frees their slots."""

import time
from collections.abc import Iterator

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from fashion_pipeline.store.locks import is_held
from fashion_pipeline.store.store import Store

YOUNG_SECONDS = 120.0
"""A run without a lock is taken to be starting for this long."""

SETTLE_SECONDS = 2.0
"""Between the end of a run's last step and the event that says so."""

_UNDER_WAY = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def bury_dead_runs(instance: DagsterInstance, store: Store) -> list[str]:
    """Mark runs whose process is gone as failed and free their slots in pools; returns their ids."""
    suspects = {run.run_id for run in _without_process(instance, store)}
    if suspects:
        time.sleep(SETTLE_SECONDS)
    buried = [run for run in _without_process(instance, store) if run.run_id in suspects] if suspects else []
    for run in buried:
        instance.report_run_failed(run, "The process of this run is gone (killed, or the machine was switched off).")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        store.run_lock(run.run_id).unlink(missing_ok=True)
    return [run.run_id for run in buried]


def _without_process(instance: DagsterInstance, store: Store) -> Iterator[DagsterRun]:
    for record in instance.get_run_records(RunsFilter(statuses=_UNDER_WAY)):
        run, lock = record.dagster_run, store.run_lock(record.dagster_run.run_id)
        young = time.time() - record.update_timestamp.timestamp() < YOUNG_SECONDS
        if not is_held(lock) and (lock.exists() or not young):
            yield run
