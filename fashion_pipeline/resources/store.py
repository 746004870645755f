"""The data root as a Dagster resource. A run that has it holds the lock of its style, and a lock of its own.

Both locks are the operating system's: a killed process holds none, so they tell whether a run still lives.
"""

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster import get_dagster_logger

from fashion_pipeline.resources.liveness import watching
from fashion_pipeline.resources.runs import PARTITION, missing_tags, origin
from fashion_pipeline.settings import read_settings
from fashion_pipeline.store.locks import holder, is_held
from fashion_pipeline.store.store import Store

PATIENCE = 6 * 3600.0
"""Seconds that a run which nobody watches waits for another one of its style; a run that a person started fails."""

_AUTOMATIC = ("dagster/schedule_name", "dagster/sensor_name")


class StoreResource(dg.ConfigurableResource[Store]):
    """Opens the data root; in a run, as long as the run lasts."""

    root: str
    """Absolute path of the data root."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[Store, None, None]:
        """The data root, while the run holds its locks. Raises LockedError that says who is at work on the style."""
        store = self.create_resource(context)
        with _held(store, context.run, context.log or get_dagster_logger()), _watched(context, store):
            yield store

    def create_resource(self, context: dg.InitResourceContext | None = None) -> Store:
        """The data root. Raises StorageError for one that another version of the program laid out."""
        return Store(Path(self.root))


@contextmanager
def _held(store: Store, run: dg.DagsterRun | None, log: logging.Logger) -> Iterator[None]:
    if run is None:
        yield
        return
    who = _described(run)
    with store.running(run.run_id, who):
        style = run.tags.get(PARTITION)
        if style is None:
            yield
        else:
            lock = store.style_lock(style)
            patience = PATIENCE if any(tag in run.tags for tag in _AUTOMATIC) else 0.0
            if patience and is_held(lock):
                log.info(f"waiting for {holder(lock)}")
            with store.working_on(style, who, patience):
                yield


@contextmanager
def _watched(context: dg.InitResourceContext, store: Store) -> Iterator[None]:
    if context.run is None or context.instance is None:
        yield
        return
    if missing := missing_tags(context.run, read_settings().profile):
        context.instance.add_run_tags(context.run.run_id, missing)
    with watching(context.instance, store, context.run):
        yield


def _described(run: dg.DagsterRun) -> str:
    return f"run {run.run_id[:8]} of job {run.job_name}, started from {origin(run)}"
