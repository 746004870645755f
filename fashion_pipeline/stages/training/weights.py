"""Training the models of a profile: the key of a training, the training itself, and what it leaves as a pipeline."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_pipeline.stages.drawing.models import Models

if TYPE_CHECKING:
    from PIL import Image

    from fashion_pipeline.ml.training.results import Progress, TrainingJob, TrainingResult

TrainingReport = Callable[["Progress"], None]
"""Called with each row of the training log."""


def training_identity(models: Models, job: "TrainingJob") -> tuple[str, dict[str, Any]]:
    """The key of a training, and all that determines it; where it is to lie does not count."""
    from fashion_pipeline.ml.sources import find_pipeline
    from fashion_pipeline.ml.training.identity import identity_of, key_of

    with models.named("generator"):
        folder = find_pipeline(job.base)
    identity = identity_of(folder, job, models.pick("training"))
    return key_of(identity), identity


def finetune(
    models: Models,
    job: "TrainingJob",
    title: str,
    report: TrainingReport,
    tell: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> "TrainingResult":
    """Train into the job's output, or go on where an earlier call stopped; write LoRA files under the title."""
    from fashion_pipeline.ml.training.exports.exporting import export_loras
    from fashion_pipeline.ml.training.finetuning import finetune
    from fashion_pipeline.ml.training.processes import leads

    with models.named("generator"):
        models.fingerprint("generator")
    load = _image_loader(job)
    result = finetune(job, models.pick("training"), report=report, tell=tell, load_image=load, stop=stop)
    if leads():
        export_loras(job.base, job.output, job.output, {"title": title})
    return result


def export_weights(models: Models, training: Path, folder: Path) -> tuple[float, float]:
    """Write the complete pipeline of a training; returns the training's effect and the export's relative error.

    Raises ModelError where the profile's generator is not the base that was trained on.
    """
    from fashion_pipeline.ml.training.exports.exporting import export_pipeline, verify_export

    export_pipeline(models.profile.generator, training, folder)
    verified = verify_export(models.profile.generator, training, folder)
    return verified.effect, verified.error


def _image_loader(job: "TrainingJob") -> Callable[[str], "Image.Image"]:
    """Opens the images of a training; a photo that is not the one that was curated is refused."""
    from fashion_pipeline.intake.photos import PhotoError, open_photo
    from fashion_pipeline.ml.training.results import TrainingError

    images = (*job.pairs, *job.held_out, *(job.validation.photos if job.validation else ()))
    contents = {image.path: image.id for image in images if image.photo}

    def load(path: str) -> "Image.Image":
        try:
            return open_photo(path, content=contents.get(path, ""))
        except PhotoError as error:
            raise TrainingError(f"training image {path}: {error}; or leave it out") from error

    return load
