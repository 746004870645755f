"""Trainings in processes of their own, whose progress and images appear on the page of the run."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from fashion_pipeline.core.names import TRAINING_SAMPLES
from fashion_pipeline.core.repeating import repeating
from fashion_pipeline.core.reports.links import picture_link
from fashion_pipeline.core.reports.pictures import markdown_image
from fashion_pipeline.resources.models import own_cards
from fashion_pipeline.running.messages import WholeLineReader
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.training.process import FAILURE, Order, command
from fashion_pipeline.stages.training.training import Trainer, TrainingCrashedError, TrainingFailedError
from fashion_pipeline.store.store import Store

if TYPE_CHECKING:
    from fashion_pipeline.ml.training.results import TrainingJob

_LOOK_EVERY = 1.0
_STOPPING = 9.0
"""Seconds that a cancelled training has; it ends itself earlier."""


def trainer(context: dg.AssetExecutionContext, models: Models, store: Store) -> Trainer:
    """A trainer that works in a process of its own, or in as many as the recipe says.

    It raises TrainingFailedError with what the process said, or TrainingCrashedError where it said nothing.
    """

    def train(job: "TrainingJob", title: str) -> None:
        if models.workers:
            models.workers.release()  # a training wants the devices for itself
        processes = job.recipe.processes
        with (
            TemporaryDirectory() as folder,
            _shown(context, store, job.output / TRAINING_SAMPLES),
            own_cards(models.device, processes, store) as visible,
        ):
            models_here = replace(models, device="cuda") if visible else models
            order = Order.write(models_here, job, title, pipes=True)
            client = dg.PipesSubprocessClient(
                message_reader=WholeLineReader(str(Path(folder) / "messages")), termination_timeout_seconds=_STOPPING
            )
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", dg.PreviewWarning)  # of how Pipes counts the processes that write
                    how = command(order, processes, models.cluster)
                    client.run(context=context, command=how, env=visible)
            except DagsterPipesExecutionError as error:
                raise _failure(job.output, error) from None

    return train


def _failure(output: Path, error: Exception) -> TrainingFailedError:
    said = output / FAILURE
    if said.exists():
        return TrainingFailedError(said.read_text(encoding="utf-8"))
    return TrainingCrashedError(
        f"the training's process ended without a word ({error}): memory may have run out, so try a smaller batch_size "
        f"or gradient_checkpointing; checkpoints are kept in {output}, and a new run goes on there"
    )


@contextmanager
def _shown(context: dg.AssetExecutionContext, store: Store, folder: Path) -> Iterator[None]:
    """Each sheet of images that appears in a folder is shown on the page of the run."""
    shown = set(folder.glob("step-*.png"))

    def show() -> None:
        for sheet in sorted(set(folder.glob("step-*.png")) - shown):
            context.log_event(_observation(context, store, sheet))
            shown.add(sheet)

    try:
        with repeating(show, _LOOK_EVERY):
            yield
    finally:
        show()


def _observation(context: dg.AssetExecutionContext, store: Store, sheet: Path) -> dg.AssetObservation:
    place = ("training", context.partition_key, sheet.parent.parent.name)
    kept = store.pictures.put(*place, sheet.stem, sheet.read_bytes())
    picture = markdown_image(picture_link(*place, kept), sheet.stem)
    return dg.AssetObservation(
        context.asset_key,
        partition=context.partition_key,
        description=f"images drawn at {sheet.stem.replace('-', ' ')}",
        metadata={"images": dg.MetadataValue.md(picture)},
    )
