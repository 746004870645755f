"""Locks between processes: held by the operating system, so that a killed process holds none."""

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from fashion_pipeline.store.errors import LockedError

POLL_SECONDS = 0.2


@contextmanager
def interruptible() -> Iterator[None]:
    """Let `interrupt_work` reach the block, if this is the main thread.

    A shell starts its background jobs with SIGINT ignored, and Python then installs no handler of its own.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def interrupt_work() -> None:
    """Interrupt the main thread, as Ctrl-C does, from another thread; its work stands in a block of `interruptible`.

    A signal to the process may reach any of its threads, and then the main one sleeps on.
    """
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGINT)


@contextmanager
def holding(path: Path, what: str, who: str, wait: float | None = 0.0) -> Iterator[None]:
    """Hold the lock of a file while the block runs.

    `what` is what the lock is for and `who` says who holds it, for the message that others get. Where somebody else
    holds it, `wait` seconds are waited (None: for ever), then LockedError is raised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        _acquire(stream, path, what, wait)
        stream.seek(0)
        stream.truncate()
        json.dump({"who": who, "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}, stream)
        stream.flush()
        try:
            yield
        finally:
            stream.seek(0)
            stream.truncate()


def require_free(path: Path, what: str) -> None:
    """Raise LockedError, as `holding` does, where some process holds the lock of a file; take nothing."""
    if is_held(path):
        raise _locked(path, what)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock of a file."""
    try:
        with path.open("r+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def holder(path: Path) -> str:
    """Who holds the lock of a file, for people."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return f"{about['who']} (process {about['pid']}, since {about['since']})"
    except (OSError, ValueError, KeyError):
        return "another process"


def _acquire(stream: IO[str], path: Path, what: str, wait: float | None) -> None:
    until = float("inf") if wait is None else time.monotonic() + wait
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise _locked(path, what) from None
            time.sleep(POLL_SECONDS)
        else:
            return


def _locked(path: Path, what: str) -> LockedError:
    return LockedError(f"{what} is in use by {holder(path)}: wait for it, or cancel it")
