"""The whole chain under faults: runs as a person starts them, with worker, trainer, command, database and queue."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fashion_pipeline.settings import Settings
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.storage.locks import is_held
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.faults import planting
from fashion_pipeline_tests.faults.outcome import Injected, differences, outcome, torn
from fashion_pipeline_tests.faults.stages import publish_as_better

STYLE = "coat"
KINDS = (
    *("killed",) * 5,
    *("worker killed",) * 2,
    "command killed",
    "all killed",
    "terminal closed",
    *("disk full",) * 2,
    "read-only",
    "clock set back",
    *("two at once",) * 2,
    *("photos changed",) * 2,
    "database locked",
    "damaged",
)
"""What happens to the chain, in turn."""

DAMAGED = ("records/*/*/*/*", "records/*/*/latest.json", "embeddings/**/*.parquet", "images/*/*.png", "work/**/*")
FIRST, NOW = 12, 16
"""Photos of the style at the run before, and at the one that is disturbed."""

BEFORE = ("--steps", "4", "--budget", "8", "--products", "2")
KNOBS = ("--steps", "6", "--budget", "12", "--products", "2", "--set", "checkpoint_every=2")
LONGEST = 300.0
"""Seconds that a run may take; far more than it needs."""

LOCKED_SECONDS = 12.0

_LEFT = """
import json, dagster as dg
under_way = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
with dg.DagsterInstance.get() as instance:
    info = instance.event_log_storage.get_concurrency_info("gpu")
    held = {*info.active_run_ids, *info.pending_run_ids, *info.assigned_run_ids}
    runs = [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=under_way))]
print(json.dumps({"a slot is held": sorted(held), "left as started": runs}))
"""


class Runs:
    """A style with a published version, and what an undisturbed run makes of it with more photos and other knobs."""

    def __init__(self, folder: Path, samples: Path, profile: str) -> None:
        self.folder, self._samples, self._profile = folder, samples, profile
        self._begun, self._undisturbed = folder / "begun", folder / "undisturbed"

    def prepare(self) -> None:
        """Run undisturbed, unless that was done."""
        if (self.folder / "ready").exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lay_out(FIRST)
        _well(self._run(self._begun, BEFORE), "the run before")
        publish_as_better(Store(self._begun), Models(self._profile, "cpu", "fp32"))
        self._lay_out(NOW)
        shutil.copytree(self._begun, self._undisturbed, symlinks=True)
        counting = planting.Shared(self.folder / "counting", self._undisturbed, "none")
        began = time.monotonic()
        _well(self._run(self._undisturbed, KNOBS, counting.environment), "the undisturbed run")
        known = {
            "seconds": time.monotonic() - began,
            "changes": counting.counted()[0],
            "outcome": outcome(self._undisturbed),
            "wrong": [*torn(self._undisturbed), *self._left(self._undisturbed)],
        }
        if known["wrong"]:
            raise RuntimeError(f"the undisturbed run left {known['wrong']}")
        (self.folder / "known.json").write_text(json.dumps(known), encoding="utf-8")
        (self.folder / "ready").touch()

    def inject(self, number: int, seed: int) -> Injected:
        """One injection: the same fault for the same number and seed, as far as it does not depend on time."""
        chosen, kind = random.Random(f"chain {seed} {number}"), KINDS[number % len(KINDS)]
        known = json.loads((self.folder / "known.json").read_text(encoding="utf-8"))
        root = self.folder / "disturbed"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self._begun, root, symlinks=True)
        began = time.monotonic()
        with ExitStack() as stack:
            fault, ended = self._disturb(stack, root, kind, known, chosen)
        restarted = self._run(root, KNOBS).ended()
        wrong = [] if restarted == "well" else [f"the restart ended with: {restarted}"]
        wrong += [f"differs: {each}" for each in differences(outcome(root), known["outcome"])] if not wrong else []
        wrong += [f"torn: {each}" for each in torn(root)] + self._left(root)
        return Injected(number, "full chain", fault, ended, tuple(wrong), time.monotonic() - began)

    def _disturb(
        self, stack: ExitStack, root: Path, kind: str, known: dict[str, Any], chosen: random.Random
    ) -> tuple[str, str]:
        """Run under a fault; returns what was done and how the run ended."""
        if kind in planting.KINDS or kind == "damaged":
            planted = "killed" if kind == "damaged" else kind
            at = chosen.randint(1, known["changes"])
            shared = planting.Shared(self.folder / "shared", root, planted, at)
            ended = self._run(root, KNOBS, shared.environment).ended()
            if planted != "killed":
                _kill(_at_work(root))  # such a machine is switched off at last
            fault = f"{planted} at {at}"
            return (f"{fault}, {planting.damage(root, chosen, *DAMAGED)}" if kind == "damaged" else fault), ended
        after = chosen.uniform(0.0, 0.8 * known["seconds"])
        command = self._run(root, KNOBS)
        worker = _working(root, command)
        time.sleep(after)
        fault = f"{kind} after {after:.0f} s"
        if kind == "worker killed":
            _kill([worker])
        elif kind == "command killed":
            command.process.kill()
        elif kind == "all killed":
            os.killpg(command.process.pid, signal.SIGKILL)
            _kill([worker, *_at_work(root)])
        elif kind == "terminal closed":
            os.killpg(command.process.pid, signal.SIGHUP)
        elif kind == "two at once":
            return fault, f"the second: {self._run(root, KNOBS).ended()}; the first: {command.ended()}"
        elif kind == "photos changed":
            stack.enter_context(self._changed_photos(chosen))
        elif kind == "database locked":
            with _locked(sorted((root / "dagster_home").rglob("*.db"))):
                time.sleep(LOCKED_SECONDS)
        return fault, command.ended()

    @contextmanager
    def _changed_photos(self, chosen: random.Random) -> Iterator[None]:
        """One photo is deleted and one replaced by another; both come back."""
        photos = sorted((self.folder / "photos" / STYLE).iterdir())
        gone, replaced, other = chosen.sample(photos, 3)
        kept = {path: path.read_bytes() for path in (gone, replaced)}
        gone.unlink()
        shutil.copy(other, other.with_name(".fresh")).replace(replaced)
        try:
            yield
        finally:
            for path, data in kept.items():
                path.write_bytes(data)

    def _lay_out(self, photos: int) -> None:
        for style, count in ((STYLE, photos), ("bag", FIRST)):
            folder = self.folder / "photos" / style
            folder.mkdir(parents=True, exist_ok=True)
            for photo in sorted((self._samples / style).glob("*.png"))[:count]:
                if not (folder / photo.name).exists():
                    shutil.copy(photo, folder)

    def _run(self, root: Path, knobs: Sequence[str], environment: Mapping[str, str] | None = None) -> "_Command":
        arguments = ("run", "--style", STYLE, "--source", str(self.folder / "photos"), *knobs)
        settings = Settings(root, self._profile, "cpu", "fp32").environment()
        return _Command(arguments, os.environ | settings | (environment or {}))

    def _left(self, root: Path) -> list[str]:
        """Slots that are held, and runs that are under way, though nothing is."""
        environment = os.environ | Settings(root, self._profile, "cpu", "fp32").environment()
        asked = [sys.executable, "-W", "ignore", "-c", _LEFT]
        told = subprocess.run(asked, check=True, env=environment, capture_output=True, text=True).stdout
        return [f"{what}: {ids}" for what, ids in json.loads(told.splitlines()[-1]).items() if ids]


class _Command:
    """A command of its own session; what it says goes to a file, which those that outlive it may keep open."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `ended`)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fashion_pipeline.cli", *arguments],
            env=environment,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ended(self) -> str:
        """How it ended: well, by a signal, or with what it said last; one that hangs is killed."""
        try:
            code = self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            return "HANGS"
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()
        self._said.close()
        errors = [line for line in said if line.startswith("error:")]
        return "well" if code == 0 else f"exit {code}: {' '.join(errors or said[-1:])}"


def _working(root: Path, command: "subprocess.Popen[str]") -> int:
    """The process that works on the style, once there is one."""
    lock = Store(root).locks.style(STYLE)
    while command.process.poll() is None:
        time.sleep(0.05)
        if lock.exists() and is_held(lock) and (text := lock.read_text(encoding="utf-8")):
            return int(json.loads(text)["pid"])
    raise RuntimeError(f"the run ended before it began: {command.ended()}")


def _at_work(root: Path) -> list[int]:
    """All processes that work on a data root, by their environment."""
    mark = f"FASHION_PIPELINE_DATA={root}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


def _kill(processes: Sequence[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@contextmanager
def _locked(databases: Sequence[Path]) -> Iterator[None]:
    """Nobody else can write to these SQLite databases."""
    with ExitStack() as stack:
        for database in databases:
            connection = sqlite3.connect(database, timeout=30)
            stack.callback(connection.close)
            with suppress(sqlite3.OperationalError):
                connection.execute("BEGIN EXCLUSIVE")
            stack.callback(connection.rollback)
        yield


def _well(command: _Command, what: str) -> None:
    if (ended := command.ended()) != "well":
        raise RuntimeError(f"{what} ended with: {ended}")
