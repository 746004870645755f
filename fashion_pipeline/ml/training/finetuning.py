"""Teaching a StableDiffusionPipeline a style: a loop that can be killed at any step and goes on exactly there.

The data of a step is a pure function of (seed, step) and nothing draws from torch's global random state, so weights,
AdamW's moments and the step are all the state there is; at one thread count a resumed run is bit-equal to an
undisturbed one.
"""

import gc
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.devices import Device, free_memory
from fashion_pipeline.ml.pipelines import image_size, load_pipeline
from fashion_pipeline.ml.sources import find_pipeline
from fashion_pipeline.ml.training.caching import Encoder, LoadImage, TensorCache
from fashion_pipeline.ml.training.checkpoints import (
    Checkpoint,
    checkpoint_folders,
    newest_checkpoint,
    write_checkpoint,
)
from fashion_pipeline.ml.training.data import TrainingData, encode_data
from fashion_pipeline.ml.training.identity import (
    RESULT_FILE,
    finished_training,
    identity_of,
    require_same,
    training_device,
)
from fashion_pipeline.ml.training.methods import prepare, save_trained
from fashion_pipeline.ml.training.objective import min_snr_weights, squared_errors, training_scheduler
from fashion_pipeline.ml.training.results import (
    Progress,
    TrainingError,
    TrainingPair,
    TrainingResult,
)
from fashion_pipeline.ml.tuning import apply

WEIGHTS_FILE = "trained.safetensors"

Report = Callable[[Progress], None]


@dataclass
class _Run:
    """The moving parts of a training."""

    config: Recipe
    device: Device
    unet: Any
    scheduler: Any
    data: TrainingData
    identity: dict[str, Any]
    checkpoints: Path
    learning: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.AdamW
    step: int = 0
    log: list[Progress] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Training losses since the last row of the log."""
    seconds: float = 0.0
    """Spent on them."""


def finetune(
    base: str | Path,
    pairs: Sequence[TrainingPair],
    held_out: Sequence[TrainingPair],
    config: Recipe,
    output: Path,
    device: Device,
    report: Report | None = None,
    load_image: LoadImage = Image.open,
    cache: Path | None = None,
) -> TrainingResult:
    """Fine-tune `base` on the pairs into the folder `output`, or go on where an earlier call with it stopped.

    A finished output is returned without a step. Encoded images and captions are kept in the folder `cache` (default:
    in `output`). Raises TrainingError where no pair is given, an image cannot be read, a caption is too long, `output`
    holds a training with other settings, or the loss is no number any more; OSError where the disk fails.
    """
    folder = find_pipeline(base)
    if not pairs:
        raise TrainingError("no training pairs: curate at least one photo with a caption")
    identity = identity_of(folder, pairs, held_out, config, device)
    if (finished := finished_training(output, identity)) is not None:
        return finished
    found, notes = newest_checkpoint(output / "checkpoints")
    if found is not None:
        require_same(output, found.state["identity"], identity)
    run = _start(folder, pairs, held_out, config, output, device, load_image, cache, identity)
    if found is not None:
        notes += _restore(run, found)
    _loop(run, report or (lambda progress: None))
    return _finish(run, output, found, notes)


def _loop(run: _Run, report: Report) -> None:
    """Train to the last step. The row of step 0 is the base as it came."""
    if not run.log:
        _log(run, report, rate=0.0, norm=None)
    while run.step < run.config.steps:
        began = time.perf_counter()
        rate = learning_rate(run.config, run.step)
        loss, norm = _train_step(run, rate)
        run.step += 1
        run.losses.append(loss)
        run.seconds += time.perf_counter() - began
        if run.step % run.config.log_every == 0 or _is_measured(run.config, run.step):
            _log(run, report, rate, norm)
        if run.step % run.config.checkpoint_every == 0 or run.step == run.config.steps:
            _save(run)


def learning_rate(config: Recipe, step: int) -> float:
    """The rate of the step after `step`: a linear rise, then half a cosine to zero."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def _train_step(run: _Run, rate: float) -> tuple[float, float]:
    """One optimizer step → (loss, gradient norm before clipping)."""
    batch = run.data.batch(run.config, run.step).to(run.device.name)
    with _autocast(run):
        errors = squared_errors(run.unet, run.scheduler, batch)
    loss = (errors * min_snr_weights(run.scheduler, batch.timesteps, run.config.min_snr_gamma)).mean()
    value = float(loss.detach())
    _require_number(run, "loss", value)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_(run.learning.values(), run.config.gradient_clip))
    _require_number(run, "gradient norm", norm)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return value, norm


def _held_out_loss(run: _Run) -> float | None:
    if not run.data.held_out:
        return None
    with torch.inference_mode(), _autocast(run):
        errors = [squared_errors(run.unet, run.scheduler, b.to(run.device.name)) for b in run.data.held_out]
    return float(torch.cat(errors).mean())


def _log(run: _Run, report: Report, rate: float, norm: float | None) -> None:
    count = len(run.losses)
    row = Progress(
        step=run.step,
        steps=run.config.steps,
        loss=sum(run.losses) / count if count else None,
        held_out_loss=_held_out_loss(run) if _is_measured(run.config, run.step) else None,
        learning_rate=rate,
        gradient_norm=norm,
        samples_per_second=count * run.config.batch_size / run.seconds if count else None,
    )
    run.log.append(row)
    run.losses, run.seconds = [], 0.0
    report(row)


def _is_measured(config: Recipe, step: int) -> bool:
    at_intervals = config.held_out_every > 0 and step % config.held_out_every == 0
    return at_intervals or step in (0, config.steps)


def _start(
    folder: Path,
    pairs: Sequence[TrainingPair],
    held_out: Sequence[TrainingPair],
    config: Recipe,
    output: Path,
    device: Device,
    load_image: LoadImage,
    cache: Path | None,
    identity: dict[str, Any],
) -> _Run:
    """Load the base, encode the data, and keep of the base only what training needs."""
    pipeline = load_pipeline(folder).to(device.name)
    store = TensorCache(cache or output / "cache")
    side = config.resolution or image_size(pipeline)
    encoder = Encoder(pipeline, identity["base"], side, device, load_image, store)
    data = encode_data(pipeline, pairs, held_out, config, encoder)
    unet, scheduler = pipeline.unet, training_scheduler(pipeline.scheduler)
    del pipeline, encoder
    gc.collect()
    free_memory(device)
    prepare(unet, config)
    learning = {name: weight for name, weight in unet.named_parameters() if weight.requires_grad}
    precise = training_device(config, device)
    _cast_frozen(unet, precise.dtype)
    latent = data.views[0][0]
    apply(unet, precise.way.within(latent.shape[1] * latent.shape[2]))
    optimizer = torch.optim.AdamW(learning.values(), weight_decay=config.weight_decay, fused=True)
    return _Run(config, precise, unet, scheduler, data, identity, output / "checkpoints", learning, optimizer)


def _require_number(run: _Run, what: str, value: float) -> None:
    if not math.isfinite(value):
        saved = checkpoint_folders(run.checkpoints)
        last = f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint had been written"
        mend = f"lower learning_rate (now {run.config.learning_rate:g}) or train in fp32"
        raise TrainingError(f"{what} is {value} at step {run.step + 1}; {last}; {mend}")


def _save(run: _Run) -> None:
    tensors = {f"weights.{name}": weight.detach().cpu().contiguous() for name, weight in run.learning.items()}
    for name, weight in run.learning.items():
        for kind, value in run.optimizer.state[weight].items():
            tensors[f"optimizer.{kind}.{name}"] = value.detach().cpu().contiguous()
    state = {
        "identity": run.identity,
        "threads": torch.get_num_threads(),
        "log": [vars(row) for row in run.log],
        "losses": run.losses,
        "seconds": run.seconds,
    }
    write_checkpoint(run.checkpoints, Checkpoint(run.step, tensors, state))


def _restore(run: _Run, found: Checkpoint) -> list[str]:
    """Put a checkpoint's state in place; returns notes."""
    with torch.no_grad():
        for name, weight in run.learning.items():
            weight.copy_(found.tensors[f"weights.{name}"])
            run.optimizer.state[weight] = {
                kind: found.tensors[f"optimizer.{kind}.{name}"].to(run.device.name)
                for kind in ("step", "exp_avg", "exp_avg_sq")
            }
    run.step, run.losses, run.seconds = found.step, found.state["losses"], found.state["seconds"]
    run.log = [Progress(**row) for row in found.state["log"]]
    before, now = found.state["threads"], torch.get_num_threads()
    return [f"resumed at {now} threads, begun at {before}: equal to float noise only"] if before != now else []


def _finish(run: _Run, output: Path, found: Checkpoint | None, notes: list[str]) -> TrainingResult:
    """Write the weights, then the file that marks the output as finished."""
    save_trained(run.unet, output / WEIGHTS_FILE, {"fashion_pipeline.recipe": json.dumps(run.identity, sort_keys=True)})
    began = found.step if found else 0
    result = TrainingResult(
        output,
        output / WEIGHTS_FILE,
        run.identity,
        tuple(run.log),
        run.config.steps - began,
        found.step if found else None,
        tuple(notes),
    )
    fresh = output / f".{RESULT_FILE}.fresh"
    result.save(fresh)
    fresh.replace(output / RESULT_FILE)
    return result


def _autocast(run: _Run) -> torch.autocast:
    return torch.autocast(run.device.type, run.device.dtype, enabled=run.device.dtype != torch.float32)


def _cast_frozen(unet: Any, dtype: torch.dtype) -> None:
    """What does not learn is kept in the computing precision: half the memory, no casts; what learns stays fp32."""
    for weight in unet.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.to(dtype)
