"""Trainings in processes of their own, whose progress and images appear on the page of the run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from fashion_pipeline.core.reports.pictures import data_uri, markdown_image
from fashion_pipeline.stages.models import Models
from fashion_pipeline.stages.reports import SAMPLES
from fashion_pipeline.stages.trainer import FAILURE, Order, command
from fashion_pipeline.stages.training import Trainer, TrainingFailedError

if TYPE_CHECKING:
    from fashion_pipeline.ml.training.results import TrainingJob

_LOOK_EVERY = 1.0
_STOPPING = 9.0
"""Seconds that a cancelled training has; it ends itself earlier."""


def trainer(context: dg.AssetExecutionContext, models: Models) -> Trainer:
    """A trainer that works in a process of its own, or in as many as the recipe says.

    It raises TrainingFailedError with what the process said, or that it ended without a word.
    """

    def train(job: "TrainingJob", title: str) -> None:
        order = Order.write(models, job, title, pipes=True)
        client = dg.PipesSubprocessClient(termination_timeout_seconds=_STOPPING)
        with _shown(context, job.output / SAMPLES):
            try:
                client.run(context=context, command=command(order, job.recipe.processes))
            except DagsterPipesExecutionError as error:
                raise TrainingFailedError(_why(job.output, error)) from None

    return train


def _why(output: Path, error: Exception) -> str:
    said = output / FAILURE
    if said.exists():
        return said.read_text(encoding="utf-8")
    return (
        f"the training's process ended without a word ({error}): memory may have run out, so try a smaller batch_size "
        f"or gradient_checkpointing; checkpoints are kept in {output}, and a new run goes on there"
    )


@contextmanager
def _shown(context: dg.AssetExecutionContext, folder: Path) -> Iterator[None]:
    """Each sheet of images that appears in a folder is shown on the page of the run."""
    ended = Event()
    before = set(folder.glob("step-*.png"))

    def show() -> None:
        shown = set(before)
        while True:
            last = ended.wait(_LOOK_EVERY)
            for sheet in sorted(set(folder.glob("step-*.png")) - shown):
                context.log_event(_observation(context, sheet))
                shown.add(sheet)
            if last:
                return

    watching = Thread(target=show, daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


def _observation(context: dg.AssetExecutionContext, sheet: Path) -> dg.AssetObservation:
    picture = markdown_image(data_uri(sheet.read_bytes()), sheet.stem)
    return dg.AssetObservation(
        context.asset_key,
        partition=context.partition_key,
        description=f"images drawn at {sheet.stem.replace('-', ' ')}",
        metadata={"images": dg.MetadataValue.md(picture)},
    )
