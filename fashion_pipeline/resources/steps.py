"""What every step does around its stage: it tries again where that can help, and measures what it took."""

import functools
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from fashion_pipeline.settings import read_settings
from fashion_pipeline.stages.drawing.models import device_memory, watch_device_memory
from fashion_pipeline.stages.training.training import TrainingCrashedError
from fashion_pipeline.store.errors import LockedError

F = TypeVar("F", bound=Callable[..., Any])

WAITS = (15.0, 60.0, 240.0)
"""Seconds before the second, third and fourth try of what may pass: memory that another program has, a lock, the
network."""

PASSING = (MemoryError, ConnectionError, TimeoutError, LockedError, TrainingCrashedError)
"""Errors that may not occur again a minute later."""

PASSING_NAMES = frozenset({"OutOfMemoryError", "ConnectError", "ConnectTimeout", "ReadTimeout", "RemoteProtocolError"})
"""Names of such errors of libraries that are not imported for this: torch and the hub's client."""

RATES = {"images drawn": "images a second", "embeddings computed": "embeddings a second", "steps run": "steps a second"}
"""Figures of a step, and what they are called by the second."""


def step(function: F) -> F:
    """The function of an asset, tried again where that can help; what it reports is told with time and memory."""

    @functools.wraps(function)
    def run(context: dg.AssetExecutionContext, *args: Any, **kwargs: Any) -> Any:
        with _patient(context), _measured() as told:
            return told(function(context, *args, **kwargs))

    return run  # type: ignore[return-value]


def may_pass(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, may be gone a minute later."""
    while error is not None:
        busy = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
        if busy or isinstance(error, PASSING) or type(error).__name__ in PASSING_NAMES:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _patient(context: dg.AssetExecutionContext) -> Iterator[None]:
    try:
        yield
    except (Exception, dg.DagsterExecutionInterruptedError) as error:
        tried = context.retry_number
        if tried >= len(WAITS) or not (may_pass(error) or _is_evicted(context, error)):
            raise
        context.log.warning(f"{type(error).__name__}: {error}; tried again in {WAITS[tried]:.0f} seconds")
        raise dg.RetryRequested(max_retries=len(WAITS), seconds_to_wait=WAITS[tried]) from error


def _is_evicted(context: dg.AssetExecutionContext, error: BaseException) -> bool:
    """Whether a step that is a pod was told to end though nobody cancels its run: its node is given back."""
    if not isinstance(error, dg.DagsterExecutionInterruptedError) or not read_settings().kubernetes:
        return False
    run = context.instance.get_run_by_id(context.run.run_id)
    return run is not None and run.status == dg.DagsterRunStatus.STARTED


@contextmanager
def _measured() -> Iterator[Callable[["dg.MaterializeResult[Any]"], "dg.MaterializeResult[Any]"]]:
    """A function that adds to a result what happened since the block began."""
    begun = time.monotonic()
    _forget_peak()
    watch_device_memory()

    def told(made: "dg.MaterializeResult[Any]") -> "dg.MaterializeResult[Any]":
        seconds = time.monotonic() - begun
        metadata = dict(made.metadata or {})
        figures: dict[str, Any] = {"seconds": round(seconds, 2)}
        for count, rate in RATES.items():
            if isinstance(number := metadata.get(count), int) and number:
                figures[rate] = round(number / seconds, 3)
        if (host := _peak()) is not None:
            figures["peak memory of this process in GB"] = round(host / 1e9, 3)
        if (device := device_memory()) is not None:
            figures["peak memory of the device in GB"] = round(device / 1e9, 3)
        return made._replace(metadata={**metadata, **figures})

    yield told


def _forget_peak() -> None:
    """Begin to measure the peak anew, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak() -> int | None:
    """Bytes of memory that this process had at most since then; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    fields = [line.split() for line in lines if line.startswith("VmHWM:")]
    return int(fields[0][1]) * 1024 if fields else None
