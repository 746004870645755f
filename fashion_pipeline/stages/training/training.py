"""Stage 7: weights with their curve, and the complete pipeline made from them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_pipeline.core.names import (
    EXPORT_VERIFICATION,
    KOHYA_LORA_WEIGHTS,
    LORA_WEIGHTS,
    PIPELINE,
    TRAINED_WEIGHTS,
    TRAINING_OUTCOME,
    TRAINING_RESULT,
    TRAINING_SAMPLES,
)
from fashion_pipeline.core.prompts.formats import write
from fashion_pipeline.core.prompts.planning import photos_of, plan
from fashion_pipeline.core.rows import Origin, Pair, Split
from fashion_pipeline.core.training.curation import validation_photos
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.stages.drawing.base import prompt_fits, require_base
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.captions import photo_captions
from fashion_pipeline.stages.training.curation import training_images
from fashion_pipeline.stages.training.weights import export_weights, training_identity
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import Record, require_same_files, write_content
from fashion_pipeline.store.storage.files import remove
from fashion_pipeline.store.store import Store

if TYPE_CHECKING:
    from fashion_pipeline.ml.training.results import TrainingJob, TrainingPair, TrainingResult, Validation

HELD_OUT = 48
"""Most dev photos whose loss is measured during training."""

_COLUMNS = ("step", "loss", "held_out_loss", "learning_rate", "gradient_norm", "similarity")


Trainer = Callable[["TrainingJob", str], None]
"""Carries out a training under a title, here or in another process, and leaves its outcome in the output."""


class TrainingFailedError(RuntimeError):
    """A training in another process ended without an outcome; the message says why, or where it stands."""


class TrainingCrashedError(TrainingFailedError):
    """It ended without a word, as processes do that the system kills for want of memory."""


@dataclass(frozen=True)
class Trained:
    """A training, and what this call did for it."""

    record: Record
    log: list[dict[str, Any]]
    """Rows of table `training_log`."""
    recipe: Recipe
    pairs: int
    step: int
    """The step whose weights these are."""
    steps_run: int
    """Steps this call computed; 0 where it had been finished before."""
    resumed_from: int | None
    peak_memory: int
    """Bytes, of the device or else the process."""
    notes: tuple[str, ...]

    @property
    def weights(self) -> Path:
        """The file that other programs read, diffusers' format first; without any what the training itself keeps."""
        files = [self.record.path(name) for name in (LORA_WEIGHTS, KOHYA_LORA_WEIGHTS, TRAINED_WEIGHTS)]
        return next(file for file in files if file.exists() or file == files[-1])

    @property
    def held_out(self) -> list[float]:
        """The held-out losses in order; none without dev photos."""
        return [row["held_out_loss"] for row in self.log if row["held_out_loss"] is not None]


@dataclass(frozen=True)
class Exported:
    """A complete pipeline."""

    record: Record
    effect: float
    """How much the training changes the UNet's output."""
    error: float
    """Which share of that the export gets wrong."""


def train(
    store: Store,
    models: Models,
    style: str,
    *,
    values: Mapping[str, Any],
    control: bool,
    trainer: Trainer,
    run: str = "",
) -> Trained:
    """Train on the newest curated pairs, or on the random control, by the profile's recipe with some knobs turned."""
    from fashion_pipeline.ml.training.identity import key_of_before
    from fashion_pipeline.ml.training.results import TrainingResult

    curation = store.records.latest("curation", style)
    features = store.records.input(curation, "features")
    recipe = models.profile.training.changed(dict(values))
    pairs = [pair for pair in Pair.read(curation.table("training_pairs")) if pair.kept != control]
    job = training_job(store, models, curation, recipe, pairs)
    key, identity = training_identity(models, job)
    keys = (key, key_of_before(identity))
    earlier = next((record for each in keys if (record := store.records.whole("training", style, each))), None)
    if earlier is not None:
        store.records.point(earlier)
        result = TrainingResult.load(earlier.path(TRAINING_RESULT))
        return _trained(earlier, recipe, len(job.pairs), result)
    job = replace(job, output=store.training_folder(style, key))
    _forget_damaged(store, style, key, job.output)
    checkpoints = job.output / "checkpoints"
    with store.files.mirrored(checkpoints):
        trainer(job, f"{store.sources.subject(style)} {key}")
    result = TrainingResult.load(job.output / TRAINING_OUTCOME, of_this_call=True)
    log = [{name: getattr(row, name) for name in _COLUMNS} for row in result.log]
    record = store.records.add(
        "training",
        style,
        key=key,
        inputs={"curation": curation, "features": features, "catalog": store.records.input(curation, "catalog")},
        made_of=identity | {"control": control},
        tables={"training_log": log},
        files=_files(job.output, result.weights),
        run=run,
    )
    store.files.remove(checkpoints)  # several times as large as the weights, which the record has
    return _trained(record, recipe, len(job.pairs), result)


def trained_ids(store: Store, training: Record) -> set[str]:
    """The photos and samples that a training saw."""
    if "curation" not in training.inputs:
        return set()
    pairs = Pair.read(store.records.input(training, "curation").table("training_pairs"))
    control = bool(training.made_of.get("control", False))
    return {pair.id for pair in pairs if pair.kept != control}


def _forget_damaged(store: Store, style: str, key: str, output: Path) -> None:
    """Remove what an earlier training left if it is damaged like the record that shares its files: it is done again."""
    with suppress(StorageError):
        if (record := store.records.find("training", style, key)) is None:
            return
        try:
            require_same_files(output, record.checksums)
        except StorageError:
            remove(output)


def _trained(record: Record, recipe: Recipe, pairs: int, result: "TrainingResult") -> Trained:
    log = record.table("training_log").to_pylist()
    run = (result.step, result.steps_run, result.resumed_from, result.peak_memory, result.notes)
    return Trained(record, log, recipe, pairs, *run)


def training_job(
    store: Store, models: Models, curation: Record, recipe: Recipe, pairs: Sequence[Pair]
) -> "TrainingJob":
    """A training on some of the curated pairs, without a place for its output, which its own content will name."""
    from fashion_pipeline.ml.training.results import TrainingJob

    features = store.records.input(curation, "features")
    return TrainingJob(
        base=models.profile.generator,
        pairs=_pairs(store, curation, pairs),
        held_out=_held_out(store, models, features, str(curation.made_of["format"])),
        recipe=recipe,
        output=Path(),
        cache=store.cache_folder(curation.style),
        drawing=models.profile.generation,
        validation=_validation(store, models, features),
    )


def _files(output: Path, weights: Path) -> dict[str, Path]:
    """What of a finished training belongs to its record."""
    names = [weights.name, TRAINING_RESULT, LORA_WEIGHTS, KOHYA_LORA_WEIGHTS, TRAINING_SAMPLES]
    return {name: output / name for name in names if (output / name).exists()}


def export(store: Store, models: Models, style: str, run: str = "") -> Exported:
    """A complete Stable Diffusion pipeline with the newest training merged in, unless it is there."""
    training = store.records.latest("training", style)
    require_base(models, training.made_of, f"training {training.key} of {style!r}")
    exported = store.records.whole("model", style, training.key)
    verified: dict[str, float] = {}

    def write(folder: Any) -> None:
        verified["effect"], verified["error"] = export_weights(models, training.fetched(), folder)

    record = store.records.add(
        "model",
        style,
        key=training.key,
        inputs={"training": training},
        files={} if exported else {PIPELINE: write, EXPORT_VERIFICATION: lambda path: write_content(verified, path)},
        run=run,
    )
    known = record.json(EXPORT_VERIFICATION)
    return Exported(record, known["effect"], known["error"])


def _pairs(store: Store, curation: Record, wanted: Sequence[Pair]) -> tuple["TrainingPair", ...]:
    from fashion_pipeline.ml.training.results import TrainingPair

    places = training_images(store, store.records.input(curation, "catalog"), wanted)
    return tuple(
        TrainingPair(places[pair.id], pair.caption, pair.id, pair.origin == Origin.REFERENCE) for pair in wanted
    )


def _held_out(store: Store, models: Models, features: Record, strategy: str) -> tuple["TrainingPair", ...]:
    """Dev photos, captioned like those trained on; their loss is shown, and decides nothing."""
    from fashion_pipeline.ml.training.results import TrainingPair

    photos = store.photos(store.records.input(features, "catalog"))
    captions = photo_captions(store, models, features, strategy)
    return tuple(
        TrainingPair(photo.path, captions[photo.id][0], photo.id, True)
        for photo in photos_of(photos, Split.DEV, HELD_OUT)
    )


def _validation(store: Store, models: Models, features: Record) -> "Validation | None":
    """The plain prompt for search photos that are not trained on, each with its product's seed; None for few photos."""
    from fashion_pipeline.ml.training.results import TrainingPair, Validation

    photos = validation_photos(store.photos(store.records.input(features, "catalog")))
    plain = write("plain", store.sources.subject(features.style), [], prompt_fits(models))
    shots = plan([("plain", plain)], photos, "validation")
    if not photos:
        return None
    return Validation(
        requests=tuple(shot.request(models.profile.generation) for shot in shots),
        photos=tuple(TrainingPair(photo.path, plain.prompt, photo.id, True) for photo in photos),
        encoder=models.profile.encoder,
        whole=models.profile.whole_photos,
    )
