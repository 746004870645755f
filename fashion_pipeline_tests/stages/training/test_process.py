"""A training in a process of its own: it is stopped, loses its parent, works with others, and goes on afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from fashion_pipeline.core.names import TRAINING_OUTCOME
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.training.results import TrainingJob, TrainingPair, TrainingResult
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.training.process import FAILURE, STOPPED, Order, command
from fashion_pipeline_tests.conftest import QUICK

MODELS = Models("embedded", device="cpu", precision="fp32", machine=QUICK / "machine")
WAIT = 120.0


def order(root: Path, **knobs: object) -> tuple[TrainingJob, Path]:
    photos = []
    for index, colour in enumerate(("red", "green", "blue", "black")):
        file = root / f"{colour}.png"
        if not file.exists():
            root.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64 + index), colour).save(file)
        photos.append(TrainingPair(str(file), f"a {colour} coat"))
    recipe = Recipe.of(
        {"steps": 4, "batch_size": 2, "rank": 4, "log_every": 1, "held_out_every": 1, "checkpoint_every": 100} | knobs
    )
    held_out = tuple(photos[2:])
    output = root / "output"
    job = TrainingJob(
        MODELS.profile.generator, tuple(photos), held_out, recipe, output, root / "cache", MODELS.profile.generation
    )
    return job, Order.write(MODELS, job, "coat")


def wait_until(so: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not so():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").split()[2] != "Z"
    except OSError:
        return False


def first_line(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout is not None
    for text in process.stdout:
        if text.startswith(start):
            return
    raise AssertionError(f"it never said {start!r}")


def test_a_training_that_is_stopped_writes_a_checkpoint_and_goes_on_there(tmp_path: Path) -> None:
    job, file = order(tmp_path, steps=2000)
    process = subprocess.Popen(command(file), stdout=subprocess.PIPE, text=True)
    first_line(process, "training: step 3 ")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=WAIT) == STOPPED
    assert time.monotonic() - began < 10
    said = (job.output / FAILURE).read_text(encoding="utf-8")
    assert "run it again to go on there" in said
    (checkpoint,) = (job.output / "checkpoints").glob("step-*")
    assert f"stopped at step {int(checkpoint.name[5:])} of 2000" in said
    again = subprocess.Popen(command(file), stdout=subprocess.PIPE, text=True)
    first_line(again, f"training: step {int(checkpoint.name[5:]) + 1} ")
    again.kill()
    again.wait()


def test_a_training_ends_when_the_process_it_works_for_is_killed(tmp_path: Path) -> None:
    job, _ = order(tmp_path, steps=100_000)
    code = f"""
import subprocess, sys
from pathlib import Path
from fashion_pipeline.ml.training.results import TrainingJob
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.training.process import Order
job = TrainingJob.load(Path({str(job.output / "job.json")!r}))
file = Order.write(Models("embedded", "cpu", "fp32", Path({str(MODELS.machine)!r})), job, "coat")
child = subprocess.Popen([sys.executable, "-m", "fashion_pipeline.stages.training.process", str(file)])
print(child.pid, flush=True)
child.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    first_line(parent, "training: step 1 ")
    parent.kill()
    parent.wait()
    wait_until(lambda: not lives(child))


def test_two_processes_with_half_the_batch_each_lose_as_one(tmp_path: Path) -> None:
    logs = []
    for name, processes in (("one", 1), ("two", 2)):
        job, file = order(tmp_path / name, batch_size=4, processes=processes, steps=5, learning_rate=1e-3)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        told = subprocess.run(
            command(file, processes), check=True, env=environment, timeout=300, stdout=subprocess.PIPE, text=True
        ).stdout
        assert told.count("training: step 5 of 5") == 1
        logs.append(TrainingResult.load(job.output / TRAINING_OUTCOME).log)
    one, two = logs
    assert [row.step for row in two] == [row.step for row in one]
    for ours, theirs in zip(two[1:], one[1:], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-3)
    assert two[-1].held_out_loss == pytest.approx(one[-1].held_out_loss, rel=1e-4)
    weights = [load_file(tmp_path / name / "output" / "trained.safetensors") for name in ("one", "two")]
    assert max(float((weights[0][n] - weights[1][n]).abs().max()) for n in weights[0]) < 1e-4


def test_what_went_wrong_is_left_in_one_line(tmp_path: Path) -> None:
    job, file = order(tmp_path, rank=512)
    assert subprocess.run(command(file), check=False).returncode == 1
    said = (job.output / FAILURE).read_text(encoding="utf-8")
    assert said.startswith("rank is 512, but layer ") and "\n" not in said
    assert not (job.output / TRAINING_OUTCOME).exists()


def test_an_order_holds_all_that_the_process_needs(tmp_path: Path) -> None:
    job, file = order(tmp_path)
    read = Order.read(file)
    assert read.models() == MODELS
    assert TrainingJob.load(Path(read.job)) == job
    assert read.parent == os.getpid()
    assert json.loads(file.read_text(encoding="utf-8"))["title"] == "coat"
