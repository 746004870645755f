"""A LoRA run against diffusers' own script and against the UNet alone: images a second, memory, held-out loss.

    python -m benchmarks.finetuning SCRIPT [--steps 500] [--seeds 2] [--runs 3]

SCRIPT is `examples/text_to_image/train_text_to_image_lora.py` of the diffusers repository; it needs torchvision and
datasets beside this package. Both train the embedded generator on the same sample photos with the same captions,
resolution, batch, rank, precision, optimizer, schedule and steps, each in a process of its own, from nothing: start-up,
encoding and caching count. Runs take turns, medians are shown. The UNet alone is a forward and a backward pass of the
same batch, in the way that training uses. The held-out loss is one evaluator's for both, on photos neither has seen.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from fashion_pipeline.core.names import LORA_WEIGHTS
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.training.results import TrainingJob, TrainingPair, TrainingResult
from fashion_pipeline.settings import PACKAGE
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.training.process import Order, command

SAMPLES = Path(__file__).parents[1] / "data" / "samples" / "coat"
BASE = PACKAGE / "embedded" / "generator"
PHOTOS, HELD_OUT = 96, 48
BATCH, RANK, RATE, WARM_UP = 8, 16, 1e-3, 50
CAPTIONS = ("a photo of a coat", "a photo of a black coat", "a photo of a grey coat", "a photo of a long coat")


def main(script: Path, steps: int, seeds: int, runs: int) -> None:
    """Take turns, then print the table."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        models = Models("embedded", machine=root / "machine")
        way = models.pick("training")
        photos = [TrainingPair(str(file), CAPTIONS[i % 4]) for i, file in enumerate(sorted(SAMPLES.glob("*.png")))]
        pairs, held_out = photos[:PHOTOS], photos[PHOTOS : PHOTOS + HELD_OUT]
        _dataset(root / "photos", pairs)
        ours, theirs, alone, steady = [], [], [], []
        for run in range(runs):
            seed = run % seeds
            ours.append(_run(_ours(models, root / f"ours{run}", pairs, steps, seed)))
            theirs.append(_run(_theirs(script, root, root / f"theirs{run}", way.precision, steps, seed)))
            alone.append(_alone(way))
            steady.append(_steady(root / f"ours{run}" / "output"))
            print(
                f"run {run + 1}: ours {ours[-1]}, diffusers {theirs[-1]}, UNet alone {alone[-1]:.3f} s a step",
                flush=True,
            )
        files = {"ours": "output/" + LORA_WEIGHTS, "theirs": "pytorch_lora_weights.safetensors"}
        losses = {
            whose: [_loss(root / f"{whose}{seed}" / file, held_out) for seed in range(min(seeds, runs))]
            for whose, file in files.items()
        }
        before = _loss(None, held_out)
    _print(ours, theirs, alone, steady, losses, before, steps, way)


def _ours(models: Models, root: Path, pairs: list[TrainingPair], steps: int, seed: int) -> list[str]:
    """The command of our training, which has nothing cached."""
    values = {"steps": steps, "batch_size": BATCH, "rank": RANK, "alpha": float(RANK), "learning_rate": RATE}
    recipe = Recipe.of(values | {"warmup_steps": WARM_UP, "seed": seed, "precision": "bf16", "checkpoint_every": steps})
    recipe = recipe.changed({"caption_dropout": 0.0, "sample_every": 0, "held_out_every": 0})
    generation = models.profile.generation
    job = TrainingJob(str(BASE), tuple(pairs), (), recipe, root / "output", root / "cache", generation)
    return command(Order.write(models, job, "coat"))


def _theirs(script: Path, root: Path, output: Path, precision: str, steps: int, seed: int) -> list[str]:
    """The command of diffusers' script with the same settings."""
    options: dict[str, Any] = {
        "pretrained_model_name_or_path": BASE,
        "train_data_dir": root / "photos",
        "cache_dir": output / "cache",
        "output_dir": output,
        "resolution": 64,
        "train_batch_size": BATCH,
        "max_train_steps": steps,
        "learning_rate": RATE,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": WARM_UP,
        "snr_gamma": 5.0,
        "rank": RANK,
        "mixed_precision": "bf16",
        "checkpointing_steps": 10 * steps,
        "seed": seed,
        "caption_column": "text",
    }
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, str(script), *given, "--random_flip"]


def _dataset(folder: Path, pairs: list[TrainingPair]) -> None:
    """The photos as the script wants them."""
    folder.mkdir()
    rows = []
    for pair in pairs:
        file = Path(pair.path)
        (folder / file.name).write_bytes(file.read_bytes())
        rows.append(json.dumps({"file_name": file.name, "text": pair.caption}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _run(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident GB of a command. Raises RuntimeError with its last words if it fails."""
    environment = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as said:
        began, peak = time.monotonic(), 0
        process = psutil.Popen(command, stdout=said, stderr=said, env=environment)
        while process.poll() is None:
            with suppress(psutil.Error):
                peak = max(peak, sum(each.memory_info().rss for each in (process, *process.children(recursive=True))))
            time.sleep(0.05)
        took = time.monotonic() - began
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{command}: {said.read()[-2000:].decode()}")
    return round(took, 1), round(peak / 1e9, 2)


def _steady(output: Path) -> float:
    """Seconds of a step of our loop, without start-up, measurements and checkpoints, by its own log."""
    rows = [row for row in TrainingResult.load(output / "result.json").log if row.samples_per_second]
    return statistics.median(BATCH / row.samples_per_second for row in rows if row.samples_per_second)


def _alone(way: Any) -> float:
    """Seconds of a forward and a backward pass of the UNet with its LoRA, in a fresh process."""
    values = [way.name, way.precision, way.layout, way.attention]
    code = f"from benchmarks.finetuning import passes; passes(*{values!r})"
    return float(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()[-1]
    )


def passes(name: str, precision: Any, layout: Any, attention: Any) -> None:
    """Print the median seconds of 60 passes of a batch; called in a process of its own."""
    import torch

    from fashion_pipeline.ml.devices import Device
    from fashion_pipeline.ml.families import family_of
    from fashion_pipeline.ml.pipelines import load_pipeline
    from fashion_pipeline.ml.training.methods import Parts, prepare
    from fashion_pipeline.ml.tuning import apply

    torch.set_flush_denormal(True)
    device = Device(name, "bf16", "", layout, attention)
    unet = load_pipeline(BASE).unet
    prepare(Parts(family_of(BASE), unet), Recipe.of({"rank": RANK}))
    for weight in unet.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.to(torch.bfloat16)
    apply(unet, device.compute_config)
    latents, texts = torch.randn(BATCH, 4, 16, 16), torch.randn(BATCH, 77, unet.config.cross_attention_dim)
    taken = []
    for _ in range(60):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16):
            predicted = unet(latents, torch.randint(0, 1000, (BATCH,)), encoder_hidden_states=texts).sample
        predicted.float().square().mean().backward()
        taken.append(time.perf_counter() - began)
    print(statistics.median(taken[10:]))


def _loss(lora: Path | None, held_out: list[TrainingPair]) -> float:
    """The held-out loss in fp32 of the base with a LoRA file, loaded as stock diffusers does."""
    import torch
    from PIL import Image

    from fashion_pipeline.ml.devices import Device
    from fashion_pipeline.ml.families import family_of
    from fashion_pipeline.ml.pipelines import load_lora
    from fashion_pipeline.ml.training.data.caching import Encoder, TensorCache, loaded
    from fashion_pipeline.ml.training.objective import held_out_batches, objective_of, squared_errors

    family = family_of(BASE)
    pipeline = family.load()
    device = Device("cpu", "fp32")
    with tempfile.TemporaryDirectory() as cache:
        kept = TensorCache(Path(cache))
        encoder = Encoder(pipeline, family, "base", Recipe(), device, Image.open, kept, lambda text: None)
        moments = [loaded(views[0]) for views in encoder.images([photo.path for photo in held_out], flip=False)]
        captions = encoder.captions([photo.caption for photo in held_out])
        texts = [{name: loaded(t) for name, t in captions[photo.caption].items()} for photo in held_out]
    objective = objective_of(pipeline.scheduler)
    batches = held_out_batches(moments, texts, 1000, family.normalised, 16)
    if lora is not None:
        load_lora(pipeline, lora)
    with torch.inference_mode():
        return float(torch.cat([squared_errors(family, pipeline.unet, {}, objective, each) for each in batches]).mean())


def _print(ours: Any, theirs: Any, alone: Any, steady: Any, losses: Any, before: float, steps: int, way: Any) -> None:
    images = steps * BATCH
    rows = {"ours": ours, "diffusers' script": theirs}
    print(f"\n{steps} steps of {BATCH} images, rank {RANK}, bf16, {way.description}, {len(ours)} runs, medians\n")
    print("| | seconds | images a second | peak GB | held-out loss, each seed |\n| --- | --- | --- | --- | --- |")
    for (name, runs), whose in zip(rows.items(), ("ours", "theirs"), strict=True):
        seconds, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        told = ", ".join(f"{loss:.4f}" for loss in losses[whose])
        print(f"| {name} | {seconds:.1f} | {images / seconds:.1f} | {memory:.2f} | {told} |")
    pure = statistics.median(alone)
    print(f"| the UNet alone, without start-up | {pure * steps:.1f} | {BATCH / pure:.1f} | | {before:.4f} untrained |")
    speed = statistics.median(b[0] / a[0] for a, b in zip(ours, theirs, strict=True))
    memory = statistics.median(a[1] / b[1] for a, b in zip(ours, theirs, strict=True))
    whole = statistics.median(unet * steps / run[0] for unet, run in zip(alone, ours, strict=True))
    loop = statistics.median(unet / step for unet, step in zip(alone, steady, strict=True))
    print(f"\n{speed:.2f} times as fast, {memory:.2f} times the memory")
    print(f"of the rate of the UNet alone: {whole:.0%} with start-up and caching, {loop:.0%} in the loop")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    main(given.script, given.steps, given.seeds, given.runs)
