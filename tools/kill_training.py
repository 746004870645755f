"""Kill trainings at random steps with SIGKILL, let them go on each time, and compare the weights with undisturbed ones.

    python -m tools.kill_training [--kills 10] [--steps 40]

LoRA, the whole UNet and a moving average, on the embedded generator and sample photos, at one thread. Prints, for each,
at which steps it was killed and whether the final weights are equal to the last bit; fails if any is not.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.training.results import TrainingJob, TrainingPair
from fashion_pipeline.settings import PACKAGE
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.training.process import Order, command

SAMPLES = Path(__file__).parents[1] / "data" / "samples" / "coat"
METHODS = {
    "LoRA": {"rank": 8},
    "whole UNet": {"method": "full", "learning_rate": 1e-4},
    "moving average": {"rank": 8, "ema_decay": 0.95},
}


def main(kills: int, steps: int) -> int:
    """Print a line a method; returns how many went wrong."""
    wrong = 0
    for name, knobs in METHODS.items():
        with tempfile.TemporaryDirectory() as folder:
            undisturbed, file = _order(Path(folder) / "undisturbed", steps, knobs)
            subprocess.run(command(file), check=True, env=_environment(), capture_output=True)
            killed, file = _order(Path(folder) / "killed", steps, knobs)
            at = [step for step in sorted(random.Random(name).sample(range(1, steps), kills)) if _kill(file, step)]
            subprocess.run(command(file), check=True, env=_environment(), capture_output=True)
            same = _weights(undisturbed).read_bytes() == _weights(killed).read_bytes()
        wrong += not same
        print(f"{name}: killed at steps {', '.join(map(str, at))}: {'bit-equal' if same else 'NOT EQUAL'}", flush=True)
    return wrong


def _order(root: Path, steps: int, knobs: dict[str, object]) -> tuple[TrainingJob, Path]:
    photos = tuple(TrainingPair(str(file), "a photo of a coat") for file in sorted(SAMPLES.glob("*.png"))[:24])
    values = {"steps": steps, "batch_size": 4, "learning_rate": 1e-3, "log_every": 1, "checkpoint_every": 3} | knobs
    models = Models("embedded", "cpu", "fp32", root.parent / "machine")
    recipe, drawing = Recipe.of(values), models.profile.generation
    base = str(PACKAGE / "embedded" / "generator")
    job = TrainingJob(base, photos[:16], photos[16:], recipe, root / "output", root / "cache", drawing)
    return job, Order.write(models, job, "coat")


def _kill(file: Path, step: int) -> bool:
    """Start the training and kill it when it tells of a step; whether it got there."""
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(file), text=True, env=_environment(), **quiet)
    assert process.stdout is not None
    reached = any(_step(line) >= step for line in process.stdout)
    process.kill()
    process.wait()
    return reached


def _step(line: str) -> int:
    return int(line.split()[2]) if line.startswith("training: step ") else 0


def _weights(job: TrainingJob) -> Path:
    return job.output / "trained.safetensors"


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    sys.exit(main(given.kills, given.steps))
