"""The data root as a Dagster resource. A run that has it holds the lock of its style, and a lock of its own.

Both locks are the operating system's: a killed process holds none, so they tell whether a run still lives.
"""

import logging
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
from dagster import get_dagster_logger

from fashion_pipeline.running.liveness import ending_with_its_run, watching
from fashion_pipeline.running.runs import PARTITION, missing_tags, origin
from fashion_pipeline.settings import read_settings
from fashion_pipeline.store.storage.locks import holder, is_held
from fashion_pipeline.store.store import Store

PATIENCE = 6 * 3600.0
"""Seconds that a run which nobody watches waits for another one of its style; a run that a person started fails."""

_AUTOMATIC = ("dagster/schedule_name", "dagster/sensor_name")


class StoreResource(dg.ConfigurableResource[Store]):
    """Opens the data root; in a run, as long as the run lasts."""

    root: str
    """Absolute path of the data root."""
    apart: bool = False
    """Whether a step is a process of its own; then the process of its run holds the locks."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[Store, None, None]:
        """The data root, while the run holds its locks. Raises LockedError that says who is at work on the style."""
        store = self.create_resource(context)
        if context.run is None:
            yield store
        elif self.apart:
            with ending_with_its_run(store, context.run):
                yield store
        else:
            with working(store, context.run, context.instance, context.log or get_dagster_logger()):
                yield store

    def create_resource(self, context: dg.InitResourceContext | None = None) -> Store:
        """The data root. Raises StorageError for one that another version of the program laid out."""
        return Store(Path(self.root))


@contextmanager
def working(
    store: Store, run: dg.DagsterRun, instance: dg.DagsterInstance | None, log: logging.Logger
) -> Iterator[None]:
    """Hold what the process of a run holds while it lives, and watch over it.

    Raises LockedError that says who is at work on the style.
    """
    who, style = _described(run), run.tags.get(PARTITION)
    with ExitStack() as held:
        held.enter_context(store.locks.running(run.run_id, who))
        if style is not None:
            patience = PATIENCE if any(tag in run.tags for tag in _AUTOMATIC) else 0.0
            if patience and is_held(lock := store.locks.style(style)):
                log.info(f"waiting for {holder(lock)}")
            held.enter_context(store.locks.working_on(style, who, patience))
        if instance is not None:
            if missing := missing_tags(run, read_settings().profile):
                instance.add_run_tags(run.run_id, missing)
            held.enter_context(watching(instance, store, run))
        yield


def _described(run: dg.DagsterRun) -> str:
    return f"run {run.run_id[:8]} of job {run.job_name}, started from {origin(run)}"
