"""Teaching a base a style: a loop that can be killed at any step and goes on exactly there.

The data of a step is a pure function of (seed, step) and nothing draws from torch's global random state, so weights,
their average, the optimizer's state and the step are all the state there is; at one thread count a resumed run is
bit-equal to an undisturbed one.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from fashion_pipeline.core.names import TRAINED_WEIGHTS, TRAINING_RESULT
from fashion_pipeline.core.training.recipe import Recipe, learning_rate
from fashion_pipeline.intake.linking import link
from fashion_pipeline.ml.devices import Device, peak_memory
from fashion_pipeline.ml.sources import find_pipeline
from fashion_pipeline.ml.training.checkpoints import checkpoint_folders, newest_checkpoint
from fashion_pipeline.ml.training.costs import memory_suffices, require_space
from fashion_pipeline.ml.training.data.caching import LoadImage
from fashion_pipeline.ml.training.exports.lora_files import write_tensors
from fashion_pipeline.ml.training.identity import finished_training, identity_of, require_same
from fashion_pipeline.ml.training.methods import at_strength, learnt, put
from fashion_pipeline.ml.training.objective import Batch, squared_errors
from fashion_pipeline.ml.training.optimizers import set_rate
from fashion_pipeline.ml.training.results import (
    Progress,
    TrainingError,
    TrainingJob,
    TrainingResult,
    TrainingStoppedError,
)
from fashion_pipeline.ml.training.state import Run, Tell, restore, save, start
from fashion_pipeline.ml.training.watching import Look, is_as_close

LEAST_SCALE = 1.0
"""Scale of fp16's loss below which steps are skipped for no good reason."""

Report = Callable[[Progress], None]


def finetune(
    job: TrainingJob,
    device: Device,
    *,
    report: Report = lambda row: None,
    tell: Tell = lambda text: None,
    load_image: LoadImage = Image.open,
    stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Fine-tune into the job's output, or go on where an earlier call with it stopped.

    A finished output is returned without a step. `report` gets every row of the log, `tell` what happens before the
    first step; once `stop` says so, a checkpoint is written and TrainingStoppedError raised. Raises TrainingError where
    no pair is given, an image cannot be read, a caption is too long, the output holds a training with other settings,
    disk or memory do not suffice, the loss is no number any more, or all images drawn are flat; OSError where the disk
    fails.
    """
    folder = find_pipeline(job.base)
    if not job.pairs:
        raise TrainingError("no training pairs: curate at least one photo with a caption")
    identity = identity_of(folder, job, device)
    if (finished := finished_training(job.output, identity)) is not None:
        return finished
    checkpoint, notes = newest_checkpoint(job.output / "checkpoints")
    if checkpoint is not None:
        require_same(job.output, checkpoint.state["identity"], identity)
    require_space(folder, job.recipe, job.output)
    with memory_suffices(job.recipe, device):
        run = start(folder, job, identity, device, load_image, tell)
        run.notes[:0] = notes
        if checkpoint is not None:
            restore(run, checkpoint)
        began = run.step
        _loop(run, report, stop)
        return _finish(run, began, resumed=checkpoint is not None)


def _loop(run: Run, report: Report, stop: Callable[[], bool]) -> None:
    """Train to the last step, or until nothing gets better. The row of step 0 is the base as it came."""
    recipe = run.recipe
    if not run.log:
        _log(run, report, rate=0.0, norm=None)
    while run.step < recipe.steps and not _is_exhausted(run):
        began = time.perf_counter()
        rate = learning_rate(recipe, run.step)
        loss, norm = _train_step(run, rate)
        run.step += 1
        run.losses.append(loss)
        run.seconds += time.perf_counter() - began
        if _is_due(recipe, run.step, recipe.log_every) or _is_measured(recipe, run.step) or _is_watched(run):
            _log(run, report, rate, norm)
        if _is_due(recipe, run.step, recipe.checkpoint_every):
            save(run)
            _drop_looks_but_the_best(run)
        if run.group.any(stop()) and run.step < recipe.steps:
            save(run)
            raise TrainingStoppedError(f"stopped at step {run.step} of {recipe.steps}: run it again to go on there")


def _train_step(run: Run, rate: float) -> tuple[float, float]:
    """One optimizer step → (loss, gradient norm before clipping). The next step's data is made while a GPU works."""
    recipe, total = run.recipe, torch.zeros((), device=run.device.name)
    for batch in run.batches():
        with run.autocast():
            errors = _errors(run, run.denoiser, batch)
        loss = (errors * run.data.objective.weights(batch.timesteps, recipe.min_snr_gamma)).mean() * batch.weight
        total += loss.detach()
        run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    run.group.average_gradients(run.learning.values())
    run.scaler.unscale_(run.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(run.learning.values(), recipe.gradient_clip)
    set_rate(run.optimizer, rate)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    run.average.update(run.step + 1)
    if run.step + 1 < recipe.steps:
        run.prepare_next()
    return _require_numbers(run, float(run.group.mean(total)), float(norm))


def _held_out_loss(run: Run) -> float | None:
    if not run.data.held_out:
        return None
    errors = []
    with torch.inference_mode(), run.autocast(), run.average.in_place():
        for batch in run.data.held_out:
            errors.append(_errors(run, run.parts.denoiser, batch.to(run.device.name)))
    return float(torch.cat(errors).mean())


def _errors(run: Run, denoiser: Any, batch: Batch) -> torch.Tensor:
    return squared_errors(run.parts.family, denoiser, run.parts.text_encoders, run.data.objective, batch)


def _look(run: Run) -> float | None:
    """Draw, compare, and keep the weights if they are as good as any so far → mean similarity."""
    seen: Look | None = None
    if run.watcher is not None:
        with run.average.in_place():
            seen = run.watcher.look(run.parts, run.step, run.recipe.batch_size)
        if seen.flat and run.step:
            raise TrainingError(f"every image drawn at step {run.step} is flat ({seen.sheet}); {_last_good(run)}")
    similarities = run.group.told(list(seen.similarities) if seen else None)
    if similarities is None:
        return None
    if run.step:
        _choose(run, similarities)
    return fmean(similarities)


def _choose(run: Run, seen: list[float]) -> None:
    """Keep the weights of this look if it is the closest so far, or cannot be told from that one."""
    run.looks_since_closest += 1
    closer = run.closest is None or fmean(seen) > fmean(run.closest)
    if closer or is_as_close(seen, run.closest or seen):
        run.best = run.step
        _keep(run)
    if closer:
        run.closest, run.looks_since_closest = seen, 0


def _log(run: Run, report: Report, rate: float, norm: float | None) -> None:
    count = len(run.losses)
    images = run.recipe.batch_size * run.recipe.gradient_accumulation
    row = Progress(
        step=run.step,
        steps=run.recipe.steps,
        loss=sum(run.losses) / count if count else None,
        held_out_loss=_held_out_loss(run) if _is_measured(run.recipe, run.step) else None,
        learning_rate=rate,
        gradient_norm=norm,
        samples_per_second=count * images / run.seconds if count else None,
        similarity=_look(run) if _is_watched(run) else None,
    )
    run.log.append(row)
    run.losses, run.seconds = [], 0.0
    if run.group.leads:
        report(row)


def _is_due(recipe: Recipe, step: int, every: int) -> bool:
    return step == recipe.steps or (every > 0 and step % every == 0)


def _is_measured(recipe: Recipe, step: int) -> bool:
    return step == 0 or _is_due(recipe, step, recipe.held_out_every)


def _is_watched(run: Run) -> bool:
    wanted = run.job.validation is not None and run.recipe.sample_every > 0
    return wanted and (run.step == 0 or _is_due(run.recipe, run.step, run.recipe.sample_every))


def _is_exhausted(run: Run) -> bool:
    return run.recipe.patience > 0 and run.looks_since_closest >= run.recipe.patience


def _require_numbers(run: Run, loss: float, norm: float) -> tuple[float, float]:
    """Both, if training can go on. In fp16 single steps may overflow: they are skipped, and the scale is halved."""
    mend = f"lower learning_rate (now {run.recipe.learning_rate:g})"
    if run.device.precision != "fp32":
        mend = f"set precision to fp32 (now {run.device.precision}, which some cards cannot train in), or {mend}"
    if not math.isfinite(loss):
        raise TrainingError(f"loss is {loss} at step {run.step + 1}; {_last_good(run)}; {mend}")
    overflow_is_normal = run.scaler.is_enabled() and run.scaler.get_scale() >= LEAST_SCALE
    if not math.isfinite(norm) and not overflow_is_normal:
        raise TrainingError(f"gradient norm is {norm} at step {run.step + 1}; {_last_good(run)}; {mend}")
    return loss, norm


def _last_good(run: Run) -> str:
    saved = checkpoint_folders(run.checkpoints)
    return f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint had been written"


def _best_file(run: Run, step: int) -> Path:
    return run.job.output / "checkpoints" / f"best-{step:08d}.safetensors"


def _keep(run: Run) -> None:
    """Write what the current weights have learnt, as the best so far."""
    if run.recipe.keep == "best" and run.group.leads:
        _write(run, _best_file(run, run.step))


def _drop_looks_but_the_best(run: Run) -> None:
    """Older bests go only when a checkpoint stands behind the newer one: a resumed run may need them."""
    for file in run.checkpoints.glob("best-*.safetensors"):
        if run.group.leads and run.best is not None and file != _best_file(run, run.best):
            file.unlink()


def _write(run: Run, file: Path) -> None:
    with run.average.in_place():
        tensors = learnt(run.parts, run.recipe)
    write_tensors(file, tensors, {"fashion_pipeline.recipe": json.dumps(run.identity, sort_keys=True)})


def _finish(run: Run, began: int, *, resumed: bool) -> TrainingResult:
    """Write the weights, then the file that marks the output as finished."""
    output = run.job.output
    best = run.best if run.recipe.keep == "best" else None
    if best is not None and not _best_file(run, best).is_file():
        run.notes.append(f"the best weights, those of step {best}, are gone: these are the last ones")
        best = None
    if run.group.leads and best is None:
        _write(run, output / TRAINED_WEIGHTS)
    elif run.group.leads and best is not None:
        link(_best_file(run, best), output / TRAINED_WEIGHTS)
    strength = _strongest(run, run.step if best is None else best)
    result = TrainingResult(
        output=output,
        weights=output / TRAINED_WEIGHTS,
        identity=run.identity,
        log=tuple(run.log),
        step=run.step if best is None else best,
        steps_run=run.step - began,
        resumed_from=began if resumed else None,
        peak_memory=peak_memory(run.device),
        strength=strength,
        notes=tuple(run.notes),
    )
    if run.group.leads:
        fresh = output / f".{TRAINING_RESULT}.fresh"
        result.save(fresh)
        fresh.replace(output / TRAINING_RESULT)
    return result


def _strongest(run: Run, step: int) -> float:
    """Try the final weights at the recipe's strengths, and write them at the best → that strength.

    It is 1, as they were trained, unless another is closer to the validation photos by more than one standard error.
    """
    recipe, watcher, file = run.recipe, run.watcher, run.job.output / TRAINED_WEIGHTS
    if not recipe.strengths or watcher is None:
        return 1.0
    tensors = load_file(file)
    looks: dict[float, Sequence[float]] = {}
    for strength in sorted({1.0, *recipe.strengths}):
        put(run.parts, recipe, at_strength(recipe, tensors, strength))
        looks[strength] = watcher.look(run.parts, step, recipe.batch_size, f"-strength-{strength:g}").similarities
    closest = max(looks, key=lambda strength: fmean(looks[strength]))
    kept = 1.0 if is_as_close(looks[1.0], looks[closest]) else closest
    seen = ", ".join(f"{strength:g}: {fmean(look):.3f}" for strength, look in looks.items())
    run.notes.append(f"strength {kept:g} is kept (similarity to the validation photos by strength: {seen})")
    if kept != 1:
        with safe_open(file, "pt") as opened:
            header = dict(opened.metadata())
        write_tensors(file, at_strength(recipe, tensors, kept), {**header, "fashion_pipeline.strength": f"{kept:g}"})
    return kept
