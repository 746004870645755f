"""End runs at twelve random moments, start the next one at once, and compare it with an undisturbed run.

    python -m tools.kill_runs [--seed 0]

Worker, command or both are killed, the terminal is closed, the command gets SIGTERM or Ctrl-C; some of them while the
run waits for the device. Prints a row for each: how long it took until the next run had the device, start-up
included, and whether samples, weights and scores are the same as without any of it. Fails if one took 15 seconds
longer than the undisturbed run or differs.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fashion_pipeline.settings import Settings
from fashion_pipeline.store.storage.locks import is_held
from fashion_pipeline.store.store import Store

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
LONGEST = 15.0
"""Seconds that a run may wait for one that is dead."""
_BEGAN = """
import dagster as dg
with dg.DagsterInstance.get() as instance:
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": "coat"}))
    (step,) = [s for s in instance.get_run_step_stats(runs[0].run_id) if s.step_key == "clip_features"]
print(step.start_time)
"""
AFTER = (2.0, 14.0)
"""Seconds after its first step at which a run is ended."""


@dataclass(frozen=True)
class Ending:
    """A way in which a run ends too early."""

    name: str
    end: Callable[[subprocess.Popen[bytes], int], None]
    """Called with the command and the process of its run."""
    waiting: bool = False
    """Whether it happens while the run waits for another one's turn on the device to end."""


def _worker(command: subprocess.Popen[bytes], worker: int) -> None:
    os.kill(worker, signal.SIGKILL)


def _command(command: subprocess.Popen[bytes], worker: int) -> None:
    command.kill()


def _all(command: subprocess.Popen[bytes], worker: int) -> None:
    os.killpg(command.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)


def _sent(number: signal.Signals) -> Callable[[subprocess.Popen[bytes], int], None]:
    return lambda command, worker: command.send_signal(number)


def _hangup(command: subprocess.Popen[bytes], worker: int) -> None:
    os.killpg(command.pid, signal.SIGHUP)


ENDINGS = (
    Ending("worker killed", _worker),
    Ending("worker killed", _worker),
    Ending("command killed", _command),
    Ending("command killed", _command),
    Ending("all killed", _all),
    Ending("all killed", _all),
    Ending("terminal closed", _hangup),
    Ending("SIGTERM to the command", _sent(signal.SIGTERM)),
    Ending("Ctrl-C", _sent(signal.SIGINT)),
    Ending("Ctrl-C", _sent(signal.SIGINT), waiting=True),
    Ending("SIGTERM to the command", _sent(signal.SIGTERM), waiting=True),
    Ending("worker killed", _worker, waiting=True),
)


def main(seed: int) -> int:
    """Print a row an ending; returns how many went wrong."""
    chosen, wrong = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for style in ("bag", "coat"):
            (root / "photos" / style).mkdir(parents=True)
            for photo in sorted((SAMPLES / style).glob("*.png"))[:16]:
                shutil.copy(photo, root / "photos" / style)
        undisturbed = root / "undisturbed"
        began = time.time()
        _finished(_run(undisturbed, root / "photos"))
        usual, wanted = _had_the_device(undisturbed) - began, _result(undisturbed)
        print("| ended by | after | next run had the device | result |\n| --- | --- | --- | --- |")
        print(f"| nothing | | {usual:.1f} s | |", flush=True)
        for number, ending in enumerate(ENDINGS):
            data, after = root / f"data{number}", chosen.uniform(*AFTER)
            shutil.copytree(undisturbed / "machine", data / "machine")
            _disturb(data, root / "photos", ending, after)
            began = time.time()
            _finished(_run(data, None))
            waited, same = _had_the_device(data) - began, _result(data) == wanted
            wrong += not same or waited > usual + LONGEST
            told = f"{after:.0f} s" + (", while it waited" if ending.waiting else "")
            print(f"| {ending.name} | {told} | {waited:.1f} s | {'the same' if same else 'DIFFERS'} |", flush=True)
            shutil.rmtree(data)
    return wrong


def _disturb(data: Path, photos: Path, ending: Ending, after: float) -> None:
    """Start a run and end it too early, or one that waits for it; in that case the first one is killed as well."""
    first = _run(data, photos, "bag" if ending.waiting else "coat")
    worker = _working(data, "bag" if ending.waiting else "coat")
    time.sleep(after)
    if not ending.waiting:
        ending.end(first, worker)
        _gone(first)
        return
    second = _run(data, photos)
    waiting = _working(data, "coat")
    time.sleep(3.0)
    ending.end(second, waiting)
    _gone(second)
    _all(first, worker)
    _gone(first)


def _run(data: Path, photos: Path | None, style: str = "coat") -> subprocess.Popen[bytes]:
    settings = Settings(data, "embedded", "cpu", "fp32")
    program = [sys.executable, "-m", "fashion_pipeline.cli", "run", "--style", style]
    options = ["--budget", "12", "--products", "2", "--steps", "30"] if photos else []
    return subprocess.Popen(
        [*program, *options, *(["--source", str(photos)] if photos else [])],
        env=os.environ | settings.environment() | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _working(data: Path, style: str) -> int:
    """The process that works on a style, once there is one."""
    while True:
        time.sleep(0.05)
        if data.exists():
            lock = Store(data).locks.style(style)
            if lock.exists() and is_held(lock) and (text := lock.read_text(encoding="utf-8")):
                return int(json.loads(text)["pid"])


def _had_the_device(data: Path) -> float:
    """When the first step of the newest run that needs the device began."""
    environment = os.environ | Settings(data, "embedded", "cpu", "fp32").environment()
    asked = [sys.executable, "-c", _BEGAN]
    told = subprocess.run(asked, check=True, env=environment, capture_output=True, text=True).stdout
    return float(told.splitlines()[-1])


def _gone(command: subprocess.Popen[bytes]) -> None:
    command.wait(timeout=60)


def _finished(command: subprocess.Popen[bytes]) -> None:
    if command.wait(timeout=600):
        raise RuntimeError(f"a run that nobody disturbed ended with {command.returncode}")


def _result(data: Path) -> dict[str, str]:
    """What the run made: keys of records by content, and the bytes of its weights."""
    records = Store(data).records
    found = {kind: records.latest(kind, "coat").key for kind in ("search", "curation", "training", "evaluation")}
    weights = records.latest("training", "coat").path("fashion_lora_weights.safetensors")
    return found | {"weights": hashlib.sha256(weights.read_bytes()).hexdigest()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(main(parser.parse_args().seed))
