"""Locks between processes: who holds one is told, and a killed process holds none."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from fashion_pipeline.store.errors import LockedError
from fashion_pipeline.store.storage.locks import holding, is_held


def hold_for_ever(path: Path) -> None:
    with holding(path, "the thing", "run 7 of the terminal"):
        path.with_suffix(".ready").touch()
        time.sleep(60)


@pytest.fixture
def other(tmp_path: Path):
    """A process that holds the lock."""
    process = multiprocessing.get_context("fork").Process(target=hold_for_ever, args=(tmp_path / "lock",))
    process.start()
    while not (tmp_path / "lock.ready").exists():
        time.sleep(0.01)
    yield process
    process.kill()
    process.join()


def test_a_lock_that_somebody_holds_says_who_and_what_to_do(tmp_path: Path, other) -> None:
    assert is_held(tmp_path / "lock")
    message = rf"the thing is in use by run 7 of the terminal \(process {other.pid}, since .*\): wait for it, or cancel"
    with pytest.raises(LockedError, match=message), holding(tmp_path / "lock", "the thing", "me"):
        pass


def test_a_killed_process_holds_no_lock(tmp_path: Path, other) -> None:
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    assert not is_held(tmp_path / "lock")
    with holding(tmp_path / "lock", "the thing", "me"):
        assert is_held(tmp_path / "lock")
    assert not is_held(tmp_path / "lock")


def test_whoever_waits_gets_the_lock_when_it_is_free(tmp_path: Path, other) -> None:
    other.kill()
    with holding(tmp_path / "lock", "the thing", "me", wait=10.0):
        pass


def test_looking_at_a_lock_makes_no_file(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "lock") and not list(tmp_path.iterdir())
