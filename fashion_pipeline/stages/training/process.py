"""A training in a process of its own: `python -m fashion_pipeline.stages.training.process FILE`, started for an asset.

So its memory is given back whatever happens, a crash does not take the run along, and there can be several of it, one
for each device (`together`). It reports through Dagster Pipes where Dagster started it, and ends by itself when the
process that it works for is gone.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Self

from dagster_pipes import open_dagster_pipes

from fashion_pipeline.core.names import TRAINING_OUTCOME
from fashion_pipeline.core.progress import EVERY_SECONDS, left
from fashion_pipeline.ml.training.results import Progress, TrainingJob
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.training.weights import finetune

STOPPED = 130
"""Exit code of a training that was cancelled; what it had learnt is in a checkpoint."""
GRACE = 7.0
"""Seconds that a cancelled training may take for the step it is in and a checkpoint."""
FAILURE = "failure.txt"

_LOOK_EVERY = 1.0


@dataclass(frozen=True)
class Order:
    """All that the process needs beside the training itself."""

    profile: str
    device: str
    precision: str
    machine: str | None
    title: str
    job: str
    """File of the training."""
    parent: int
    """The process without which this one ends."""
    pipes: bool
    """Whether that process listens by Dagster Pipes."""

    @classmethod
    def write(cls, models: Models, job: TrainingJob, title: str, *, pipes: bool = False) -> Path:
        """Write down a training that the calling process wants done; returns the file to start the process with."""
        job.output.mkdir(parents=True, exist_ok=True)
        (job.output / FAILURE).unlink(missing_ok=True)
        job.save(job.output / "job.json")
        machine = str(models.machine) if models.machine else None
        where = (models.profile_name, models.device, models.precision, machine)
        order = cls(*where, title, str(job.output / "job.json"), os.getpid(), pipes)
        file = job.output / "order.json"
        file.write_text(json.dumps(asdict(order), indent=1), encoding="utf-8")
        return file

    @classmethod
    def read(cls, file: Path) -> Self:
        """What `write` wrote."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))

    def models(self) -> Models:
        """The models of the run that wants it done."""
        return Models(self.profile, self.device, self.precision, Path(self.machine) if self.machine else None)


def command(order: Path, processes: int = 1, cluster: str = "") -> list[str]:
    """What starts a training: one process, or several of this machine, or of the Ray cluster at an address."""
    if processes > 1 and cluster:
        return [
            sys.executable,
            "-m",
            "fashion_pipeline.stages.training.together_on_ray",
            str(order),
            str(processes),
            cluster,
        ]
    if processes > 1:
        return [sys.executable, "-m", "fashion_pipeline.stages.training.together", str(order), str(processes)]
    return [sys.executable, "-m", "fashion_pipeline.stages.training.process", str(order)]


def main(file: Path) -> int:
    """Carry out an order; the outcome, or why there is none, is left in the training's output."""
    order = Order.read(file)
    job = TrainingJob.load(Path(order.job))
    _end_without(order.parent)
    stop = _asked_to_stop()
    with ExitStack() as stack:
        tell = _teller(order, stack)
        try:
            train_here(order.models(), job, order.title, tell, stop)
        except Exception as error:  # whatever ends a training is told to the run, in one line
            (job.output / FAILURE).write_text(str(error) or type(error).__name__, encoding="utf-8")
            return STOPPED if stop() else 1
    return 0


def train_here(
    models: Models,
    job: TrainingJob,
    title: str,
    tell: Callable[[str], None] = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train in this process and leave the outcome in the training's output."""
    from fashion_pipeline.ml.training.processes import leads

    result = finetune(models, job, title, _Teller(tell).report, tell, stop)
    if leads():
        result.save(job.output / TRAINING_OUTCOME)


class _Teller:
    """Tells the first row of the training log, those with a measurement, and of the others one every few seconds."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._first: int | None = None
        self._begun = self._said = time.monotonic()

    def report(self, row: Progress) -> None:
        """One row, with the time that the rest takes by the pace so far."""
        now = time.monotonic()
        begins = self._first is None
        if self._first is None:
            self._first, self._begun = row.step, now
        measured = row.held_out_loss is not None or row.similarity is not None
        if begins or measured or row.step == row.steps or now - self._said >= EVERY_SECONDS:
            self._said = now
            self._tell(line(row) + left(now - self._begun, row.step - self._first, row.steps - self._first))


def line(row: Progress) -> str:
    """A row of the training log in words."""
    measured = {"loss": row.loss, "held-out loss": row.held_out_loss, "similarity": row.similarity}
    figures = "".join(f", {name} {value:.4f}" for name, value in measured.items() if value is not None)
    speed = f", {row.samples_per_second:.1f} images a second" if row.samples_per_second else ""
    return f"training: step {row.step} of {row.steps}{figures}{speed}"


def _teller(order: Order, stack: ExitStack) -> Callable[[str], None]:
    """Where messages go: to the run that started this process, or to the terminal."""
    from fashion_pipeline.ml.training.processes import leads

    if not leads():
        return lambda text: None
    if not order.pipes:
        return partial(print, flush=True)
    pipes: Any = stack.enter_context(open_dagster_pipes())
    return pipes.log.info  # type: ignore[no-any-return]


def _asked_to_stop() -> Callable[[], bool]:
    """Whether somebody cancelled: the step under way is finished if that is soon, or else given up."""
    asked = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        asked.set()
        timer = threading.Timer(GRACE, os._exit, (STOPPED,))
        timer.daemon = True
        timer.start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return asked.is_set


def _end_without(parent: int) -> None:
    """End this process when another one is gone: nobody would hear of what it does."""

    def look() -> None:
        while _lives(parent):
            time.sleep(_LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
