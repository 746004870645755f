"""The moving parts of a training: how they are set up, kept in a checkpoint, and put back from one."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.devices import Device, free_memory
from fashion_pipeline.ml.families import Family, family_of
from fashion_pipeline.ml.training.checkpoints import Checkpoint, packed, unpacked, write_checkpoint
from fashion_pipeline.ml.training.data.batches import TrainingData, encode_data
from fashion_pipeline.ml.training.data.caching import Encoder, LoadImage, TensorCache
from fashion_pipeline.ml.training.identity import training_device
from fashion_pipeline.ml.training.methods import Parts, prepare
from fashion_pipeline.ml.training.objective import Batch
from fashion_pipeline.ml.training.optimizers import Average, optimizer_of
from fashion_pipeline.ml.training.processes import Group
from fashion_pipeline.ml.training.quantising import quantise
from fashion_pipeline.ml.training.results import Progress, TrainingJob
from fashion_pipeline.ml.training.watching import Watcher

Tell = Callable[[str], None]


@dataclass
class Run:
    """A training that is under way."""

    job: TrainingJob
    identity: dict[str, Any]
    device: Device
    group: Group
    parts: Parts
    denoiser: Any
    """What is trained through: the denoiser, compiled if the recipe says so."""
    data: TrainingData
    watcher: Watcher | None
    learning: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    average: Average
    scaler: torch.amp.GradScaler
    """Keeps small gradients of fp16 above zero; passes everything through in other precisions."""
    notes: list[str]
    step: int = 0
    log: list[Progress] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Training losses since the last row of the log."""
    seconds: float = 0.0
    """Spent on them."""
    best: int | None = None
    """The latest step whose look was as close to the validation photos as any."""
    closest: list[float] | None = None
    """The similarities of the closest look."""
    looks_since_closest: int = 0
    upcoming: list[Batch] | None = None
    """The batches of the next step, on their way to the device."""

    @property
    def recipe(self) -> Recipe:
        """The knobs."""
        return self.job.recipe

    @property
    def checkpoints(self) -> Path:
        """Where the state is kept."""
        return self.job.output / "checkpoints"

    def autocast(self) -> torch.autocast:
        """A block that computes in the training's precision."""
        return torch.autocast(self.device.type, self.device.dtype, enabled=self.device.dtype != torch.float32)

    def batches(self) -> list[Batch]:
        """This process's share of the next step, on the device."""
        found = self.upcoming or self._batches(self.step)
        self.upcoming = None
        return found

    def prepare_next(self) -> None:
        """Make the batches of the step after the next one, while a GPU is still at work."""
        self.upcoming = self._batches(self.step + 1)

    def _batches(self, step: int) -> list[Batch]:
        return [self.group.share(batch).to(self.device.name) for batch in self.data.step(self.recipe, step)]


def start(
    folder: Path, job: TrainingJob, identity: dict[str, Any], device: Device, load_image: LoadImage, tell: Tell
) -> Run:
    """Load the base, encode the data, and keep of the base only what training needs."""
    recipe = job.recipe
    group = Group.join(training_device(recipe, device), recipe.processes)
    device = group.device
    family = family_of(folder)
    pipeline = family.load()
    with group.leader_first():
        data, watcher, notes = _prepared(family, pipeline, job, identity["base"], device, load_image, tell)
    parts = Parts.of(family, recipe, partial(getattr, pipeline))
    del pipeline
    gc.collect()
    free_memory(device)
    prepare(parts, recipe)
    _place(parts, recipe, device, data)
    learning = parts.learning()
    return Run(
        job=job,
        identity=identity,
        device=device,
        group=group,
        parts=parts,
        denoiser=torch.compile(parts.denoiser) if recipe.compile else parts.denoiser,
        data=data,
        watcher=watcher if group.leads else None,
        learning=learning,
        optimizer=optimizer_of(recipe, learning),
        average=Average(learning, recipe.ema_decay),
        scaler=torch.amp.GradScaler(device.type, enabled=device.dtype == torch.float16),
        notes=notes,
    )


def _prepared(
    family: Family,
    pipeline: Any,
    job: TrainingJob,
    base: str,
    device: Device,
    load_image: LoadImage,
    tell: Tell,
) -> tuple[TrainingData, Watcher | None, list[str]]:
    """All that needs autoencoder and text encoders; the denoiser is on the device only if it draws prior images."""
    recipe, validation = job.recipe, job.validation
    for part in ("vae", *filter(family.has, family.text_encoders)):
        getattr(pipeline, part).to(device.name)
    encoder = Encoder(pipeline, family, base, recipe, device, load_image, TensorCache(job.cache), tell)
    data = encode_data(pipeline, job, encoder)
    watcher = None
    if validation and recipe.sample_every:
        prompts = {text for request in validation.requests for text in (request.prompt, request.negative_prompt)}
        texts = encoder.captions(sorted(prompts))
        watcher = Watcher(validation, family, pipeline, texts, device, load_image, job.output / "samples")
    return data, watcher, _warnings(job, encoder)


def _warnings(job: TrainingJob, encoder: Encoder) -> list[str]:
    """What about the data a person should know, though training goes on."""
    small, captions = len(encoder.small), {pair.caption for pair in job.pairs}
    warnings = {
        f"{small} photos are smaller than {encoder.side} pixels and were enlarged": small > 0,
        "all captions are alike: the model learns this one prompt, and nothing to steer it by": len(captions) == 1,
    }
    return [text for text, so in warnings.items() if so]


def _place(parts: Parts, recipe: Recipe, device: Device, data: TrainingData) -> None:
    """Everything to the device, in the fastest way; what does not learn in its precision: half the memory, no casts."""
    for model in parts.named().values():
        for weight in model.parameters():
            if not weight.requires_grad:
                weight.data = weight.data.to(device.dtype)
        quantise(model, recipe.quantize if model is parts.denoiser else "none", device)
        model.to(device.name)
    latent = data.views[0][0]
    parts.family.tune(parts.denoiser, device.compute_config.within(latent.shape[1] * latent.shape[2]))
    if recipe.gradient_checkpointing:
        parts.denoiser.enable_gradient_checkpointing()
        for text_encoder in parts.text_encoders.values():
            text_encoder.gradient_checkpointing_enable()
            text_encoder.train()  # it keeps activations otherwise; a CLIP has no dropout


def save(run: Run) -> None:
    """Write a checkpoint; only the leading process does."""
    if not run.group.leads:
        return
    weights, _ = packed(dict(run.learning), "weights")
    average, _ = packed(run.average.tensors, "average")
    optimizer, rest = packed(run.optimizer.state_dict(), "optimizer")
    state = {
        "identity": run.identity,
        "threads": torch.get_num_threads(),
        "optimizer": rest,
        "scaler": run.scaler.state_dict(),
        "log": [vars(row) for row in run.log],
        "losses": run.losses,
        "seconds": run.seconds,
        "best": run.best,
        "closest": run.closest,
        "looks_since_closest": run.looks_since_closest,
    }
    write_checkpoint(
        run.checkpoints, Checkpoint(run.step, weights | average | optimizer, state), run.recipe.checkpoints_kept
    )


@torch.no_grad()
def restore(run: Run, found: Checkpoint) -> None:
    """Put a checkpoint's state in place."""
    for name, weight in run.learning.items():
        weight.copy_(found.tensors[f"weights.{name}"])
    run.average.load({name: found.tensors[f"average.{name}"] for name in run.average.tensors})
    run.optimizer.load_state_dict(unpacked(found.tensors, found.state["optimizer"]))
    _lay_out_like_weights(run.optimizer)
    run.scaler.load_state_dict(found.state["scaler"])
    run.step, run.losses, run.seconds = found.step, found.state["losses"], found.state["seconds"]
    run.best, run.closest = found.state["best"], found.state["closest"]
    run.looks_since_closest = found.state["looks_since_closest"]
    run.log = [Progress(**row) for row in found.state["log"]]
    before, now = found.state["threads"], torch.get_num_threads()
    if before != now:
        run.notes.append(f"resumed at {now} threads, begun at {before}: equal to float noise only")


def _lay_out_like_weights(optimizer: torch.optim.Optimizer) -> None:
    """Give what an optimizer keeps of a weight the weight's memory format again: fused kernels go by memory order."""
    for weight, kept in optimizer.state.items():
        for name, tensor in kept.items():
            if isinstance(tensor, torch.Tensor) and tensor.shape == weight.shape:
                kept[name] = torch.empty_like(weight, dtype=tensor.dtype).copy_(tensor)
