"""Runs whose process is gone, and processes whose run nobody wants any more.

After a power cut or kill -9 nobody else marks a run as failed and frees its slots; and a run goes on for nobody when
the command that started it was killed.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.launcher import DefaultRunLauncher

from fashion_pipeline.core.repeating import repeating
from fashion_pipeline.running.runs import POOL
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.storage.locks import interrupt_work, interruptible, is_held
from fashion_pipeline.store.store import Store

YOUNG_SECONDS = 120.0
"""A run without a lock is taken to be starting for this long."""

YOUNG_ELSEWHERE_SECONDS = 600.0
"""The same where several machines share a root: a machine may have to fetch an image of the program first."""

SETTLE_SECONDS = 2.0
"""Between two looks at a run that seems dead."""

ENDING_SECONDS = 20.0
"""Between the end of a run's last step, when it gives its lock back, and the event that says how it ended."""

FORGOTTEN_SECONDS = 86_400.0
"""Locks of runs that no instance knows any more are kept for so long."""

COMMAND = "fashion_pipeline/command"
"""Tag of a run that a command started and follows: the name of the lock that the command holds."""

LOOK_SECONDS = 1.0

LOOK_ELSEWHERE_SECONDS, LOOKS_ELSEWHERE = 10.0, 3
"""The same where it takes a request to a root that several machines share, and how many looks must agree."""

BURY_EVERY = 5
"""Looks between two searches for dead runs, while a run waits for its turn."""

_UNDER_WAY = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def bury_dead_runs(instance: DagsterInstance, store: Store) -> list[str]:
    """Mark runs whose process is gone as failed and free the slots of all that are over; returns their ids.

    Where a command sees its run's process die, Dagster marks the run itself, but leaves it its slots.
    """
    buried = _dead_runs(instance, store, RunsFilter(statuses=_UNDER_WAY))
    for run in buried:
        instance.report_run_failed(run, "The process of this run is gone (killed, or the machine was switched off).")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    _free_slots_of_ended_runs(instance, store)
    _forget_ended_runs(instance, store)
    return [run.run_id for run in buried]


def is_dead(instance: DagsterInstance, store: Store, run: DagsterRun) -> bool:
    """Whether the process of a run that is under way is gone; a run that ends meanwhile is not dead."""
    return bool(_dead_runs(instance, store, RunsFilter(run_ids=[run.run_id], statuses=_UNDER_WAY)))


def _dead_runs(instance: DagsterInstance, store: Store, among: RunsFilter) -> list[DagsterRun]:
    """Runs without a process, looked at twice: between the end of a run's process and its last event lies a moment.

    None where runs are no processes that this program started: who started them, such as Kubernetes, knows of their
    end, and a run may wait there for an hour before it begins.
    """
    if not isinstance(instance.run_launcher, DefaultRunLauncher):
        return []
    suspects = {run.run_id for run in _without_process(instance, store, among)}
    if not suspects:
        return []
    time.sleep(SETTLE_SECONDS)
    return [run for run in _without_process(instance, store, among) if run.run_id in suspects]


def _free_slots_of_ended_runs(instance: DagsterInstance, store: Store) -> None:
    info = instance.event_log_storage.get_concurrency_info(POOL)
    for run_id in {*info.active_run_ids, *info.pending_run_ids, *info.assigned_run_ids}:
        run = instance.get_run_by_id(run_id)
        if (run is None or run.is_finished) and not store.locks.lives(run_id):
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def _forget_ended_runs(instance: DagsterInstance, store: Store) -> None:
    """Remove the locks of runs that are over."""
    for lock in store.locks.runs():
        run = instance.get_run_by_id(lock.name)
        with suppress(FileNotFoundError):
            is_kept = run is not None or time.time() - lock.stat().st_mtime < FORGOTTEN_SECONDS
            if (run.is_finished if run else not is_kept) and not is_held(lock):
                lock.unlink()


def command_of(run: DagsterRun) -> str:
    """The command that follows a run; empty for a run that no command follows.

    A run that the UI started from another one has inherited its tags, but not its command.
    """
    return run.tags.get(COMMAND, "") if run.parent_run_id is None else ""


@contextmanager
def watching(instance: DagsterInstance, store: Store, run: DagsterRun) -> Iterator[None]:
    """While the block runs, cancel the run if its command is gone, and bury the dead that it would wait for."""
    command = command_of(run)

    def gone() -> bool:
        return command != "" and not store.locks.follows(command)

    def end() -> None:
        instance.report_run_canceling(run, "The command that started this run is gone.")

    def bury(looks: int) -> None:
        if looks % BURY_EVERY == 0 and run.run_id in _waiting(instance):
            bury_dead_runs(instance, store)

    with _looking(store, gone, end, bury) if not instance.is_ephemeral else nullcontext():
        yield


@contextmanager
def ending_with_its_run(store: Store, run: DagsterRun) -> Iterator[None]:
    """Around a step that is a process of its own: interrupt it when the process of its run is gone."""
    with _looking(store, lambda: not store.locks.lives(run.run_id)):
        yield


@contextmanager
def _looking(
    store: Store,
    gone: Callable[[], bool],
    end: Callable[[], object] = lambda: None,
    meanwhile: Callable[[int], object] = lambda looks: None,
) -> Iterator[None]:
    """While the block runs, look every now and then whether somebody is gone; `end`, and interrupt this process, if so.

    Where several machines share a root it takes several looks in a row: object storage may just have been away, and
    with it the one who renews a lease. `meanwhile` is called after each look, with their number.
    """
    shared = store.files.remote is not None
    pause, needed = (LOOK_ELSEWHERE_SECONDS, LOOKS_ELSEWHERE) if shared else (LOOK_SECONDS, 1)
    looks = missed = 0

    def look() -> bool:
        nonlocal looks, missed
        looks += 1
        try:
            missed = missed + 1 if gone() else 0
            if missed < needed:
                meanwhile(looks)
                return False
        except StorageError:  # it may answer the next time
            return False
        end()
        interrupt_work()
        return True

    with interruptible(), repeating(look, pause):
        yield


def _waiting(instance: DagsterInstance) -> set[str]:
    return set(instance.event_log_storage.get_concurrency_info(POOL).pending_run_ids)


def _without_process(instance: DagsterInstance, store: Store, among: RunsFilter) -> Iterator[DagsterRun]:
    for record in instance.get_run_records(among):
        run, lock = record.dagster_run, store.locks.run(record.dagster_run.run_id)
        if store.locks.lives(run.run_id):
            continue
        try:
            left = lock.stat()
        except FileNotFoundError:  # it starts, is an old one, or was on another machine
            patience = YOUNG_SECONDS if store.files.remote is None else YOUNG_ELSEWHERE_SECONDS
            gone = time.time() - record.update_timestamp.timestamp() >= patience
        else:  # a process that was killed left its name in the file, one that ended has emptied it
            gone = left.st_size > 0 or time.time() - left.st_mtime >= ENDING_SECONDS
        if gone:
            yield run
