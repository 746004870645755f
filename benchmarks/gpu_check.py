"""What only a graphics card can show, in ten minutes: precisions, memory, speed, compiling, two jobs and one slot.

    python -m benchmarks.gpu_check [--base FOLDER] [--resolution 512] [--steps 12]

Without --base the architectures of Stable Diffusion v1.5 are taken with random weights (tools.real_models.build): they
cost the same time and memory as the real ones. Then a LoRA on the denoiser of each other family (family_check.py),
plain and quantised. Each case is a process of its own. Without a CUDA device the embedded generator is taken instead,
and what cannot be shown is listed as skipped.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch

from fashion_pipeline.core.names import TRAINING_OUTCOME
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.training.results import TrainingJob, TrainingPair, TrainingResult
from fashion_pipeline.settings import PROFILES
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.training.process import FAILURE, Order, command

SAMPLES = Path(__file__).parents[1] / "data" / "samples" / "coat"


@dataclass(frozen=True)
class Case:
    """A training to be measured."""

    name: str
    knobs: dict[str, Any] = field(default_factory=dict)
    needs_card: bool = False


CASES = (
    Case("LoRA, auto precision", {}),
    Case("LoRA, fp32", {"precision": "fp32"}),
    Case("LoRA, bf16", {"precision": "bf16"}),
    Case("LoRA, fp16 with scaled loss", {"precision": "fp16"}, needs_card=True),
    Case("LoRA, gradient checkpointing", {"gradient_checkpointing": True}),
    Case("LoRA, batch of 1", {"batch_size": 1}),
    Case("LoRA, compiled", {"compile": True}, needs_card=True),
    Case("LoRA on all layers", {"layers": ["attention", "feed_forward", "convolution"]}),
    Case("LoRA and text encoder", {"text_learning_rate": 5e-5}),
    Case("whole UNet, AdamW", {"method": "full"}),
    Case("whole UNet, 8-bit AdamW", {"method": "full", "optimizer": "adamw8bit"}, needs_card=True),
    Case(
        "whole UNet, Adafactor, checkpointing",
        {"method": "full", "optimizer": "adafactor", "gradient_checkpointing": True},
    ),
)


OTHERS = {"sdxl": 1024, "sd35-medium": 1024, "flux2-klein-4b": 1024, "z-image": 1024}
"""Bases of the other families, as tools.real_models.configurations calls them, and the side they are trained at."""
QUANTISED = ("none", "int8", "nf4")


def main(base: Path | None, resolution: int, steps: int) -> None:
    """Print a row a case, then whether two runs take turns."""
    card = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        where = torch.cuda.get_device_name() if card else f"CPU, {torch.get_num_threads()} threads"
        profile = _profile(root, base, card)
        resolution = resolution if card else 64
        print(f"{where}, torch {torch.__version__}, {resolution} pixels, {steps} steps, {datetime.now():%Y-%m-%d}\n")
        print("| training | images a second | peak GB | |\n| --- | --- | --- | --- |")
        for case in CASES:
            if case.needs_card and not card:
                print(f"| {case.name} | | | skipped: needs a CUDA device |")
                continue
            print(f"| {case.name} | {_measured(root, profile, case, resolution, steps)} |", flush=True)
        for (name, side), quantize in product(OTHERS.items(), QUANTISED):
            print(f"| {name}, {side} pixels, quantize {quantize} | {_other(name, side, quantize, card)} |", flush=True)
        print(f"\n{_two_jobs(root)}")
        if not card:
            print("skipped: the memory of a card, what fits on it, drawing in fp16")


def _profile(root: Path, base: Path | None, card: bool) -> str:
    """The profile whose generator is measured."""
    if base is None and not card:
        return "embedded"
    if base is None:
        subprocess.run([sys.executable, "-m", "tools.real_models.build", str(root / "sd15")], check=True)
        return str(root / "sd15" / "sd15.toml")
    text = (PROFILES / "sd15.toml").read_text(encoding="utf-8")
    text = text.replace("stable-diffusion-v1-5/stable-diffusion-v1-5", str(base.absolute()))
    file = root / "mine.toml"
    file.write_text(text.replace("vocabularies/", f"{PROFILES}/vocabularies/"), encoding="utf-8")
    return str(file)


def _measured(root: Path, profile: str, case: Case, resolution: int, steps: int) -> str:
    """Images a second in the middle of the training, the peak, and what went wrong."""
    models = Models(profile, machine=root / "machine")
    photos = tuple(TrainingPair(str(file), "a photo of a coat") for file in sorted(SAMPLES.glob("*.png"))[:8])
    values: dict[str, Any] = {"steps": steps, "batch_size": 4, "rank": 16, "resolution": resolution}
    values |= {"log_every": 1, "held_out_every": 0, "sample_every": 0, "checkpoint_every": steps}
    recipe = Recipe.of(values | case.knobs)
    output = root / "trainings" / case.name.replace(" ", "-")
    job = TrainingJob(models.profile.generator, photos, (), recipe, output, root / "cache", models.profile.generation)
    training = command(Order.write(models, job, case.name))
    ended = subprocess.run(training, check=False, capture_output=True)
    if ended.returncode:
        said = output / FAILURE
        return f"| | {said.read_text(encoding='utf-8') if said.exists() else f'ended with {ended.returncode}'}"
    result = TrainingResult.load(output / TRAINING_OUTCOME)
    speeds = [row.samples_per_second for row in result.log[len(result.log) // 2 :] if row.samples_per_second]
    return f"{statistics.median(speeds):.2f} | {result.peak_memory / 1e9:.2f} | {result.identity['precision']}"


def _other(base: str, side: int, quantize: str, card: bool) -> str:
    """The cells of a base of another family."""
    if not card:
        return "| | skipped: needs a CUDA device"
    asked = [sys.executable, "-m", "benchmarks.family_check", base, "--quantize", quantize, "--resolution", str(side)]
    ended = subprocess.run(asked, check=False, capture_output=True, text=True)
    lines = (ended.stderr if ended.returncode else ended.stdout).strip().splitlines()
    return f"| | {lines[-1][:200]}" if ended.returncode else lines[-1]


def _two_jobs(root: Path) -> str:
    """Two runs of two styles at once, and how many of their trainings overlapped: none where there is one slot."""
    data = root / "two"
    environment = os.environ | {
        "FASHION_PIPELINE_DATA": str(data),
        "FASHION_PIPELINE_PROFILE": "embedded",
        "DAGSTER_HOME": str(data / "dagster_home"),
    }
    program = str(Path(sys.executable).with_name("fashion-pipeline"))
    common = ["--source", str(SAMPLES.parent), "--products", "2"]
    first = [program, "run", "--mode", "prompt", "--style", "coat", "--budget", "12", *common]
    subprocess.run(first, check=True, env=environment, capture_output=True)
    both = [[program, "run", "--mode", "finetune", "--style", style, "--steps", "20"] for style in ("coat", "bag")]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = [subprocess.Popen([*command, *common], env=environment, **quiet) for command in both]
    codes = [process.wait() for process in running]
    asked = [sys.executable, "-c", _TIMES]
    told = subprocess.run(asked, check=True, env=environment, capture_output=True, text=True).stdout
    spans = sorted(json.loads(told.splitlines()[-1]))
    overlapped = sum(later[0] < earlier[1] for earlier, later in pairwise(spans))
    return f"two jobs at once: exit codes {codes}, {len(spans)} trainings, {overlapped} overlapped another"


_TIMES = """
import json, dagster as dg
found = []
with dg.DagsterInstance.get() as instance:
    for run in instance.get_runs():
        for step in instance.get_run_step_stats(run.run_id, ["lora_weights"]):
            if step.start_time and step.end_time:
                found.append([step.start_time, step.end_time])
print(json.dumps(found))
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    main(given.base, given.resolution, given.steps)
