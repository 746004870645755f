"""Stage 7: weights with their curve, and the complete pipeline made from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fashion_pipeline.core.prompts.planning import photos_of
from fashion_pipeline.core.rows import Pair, Split
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.stages.captions import photo_captions
from fashion_pipeline.stages.curation import training_images
from fashion_pipeline.stages.models import WEIGHTS, Models, TrainingReport
from fashion_pipeline.store.records import Record, write_content
from fashion_pipeline.store.store import Store

if TYPE_CHECKING:
    from fashion_pipeline.ml.training.results import TrainingPair

HELD_OUT = 48
"""Most dev photos whose loss is measured during training."""

MODEL = "fashion_sd_model"
_COLUMNS = ("step", "loss", "held_out_loss", "learning_rate", "gradient_norm")


@dataclass(frozen=True)
class Trained:
    """A training, and what this call did for it."""

    record: Record
    log: list[dict[str, Any]]
    """Rows of table `training_log`."""
    recipe: Recipe
    pairs: int
    steps_run: int
    """Steps this call computed; 0 where it had been finished before."""
    resumed_from: int | None
    notes: tuple[str, ...]

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
    report: TrainingReport,
    run: str = "",
) -> Trained:
    """Train on the newest curated pairs, or on the random control, by the profile's recipe with some knobs turned."""
    curation = store.records.latest("curation", style)
    features = store.records.input(curation, "features")
    recipe = models.profile.training.changed(dict(values))
    pairs = _pairs(store, curation, control)
    held_out = _held_out(store, models, features, str(curation.made_of["format"]))
    key, identity = models.training_identity(pairs, held_out, recipe)
    found = store.records.find("training", style, key)
    if found is not None:
        store.records.point(found)
        log = found.table("training_log").to_pylist()
        return Trained(found, log, recipe, len(pairs), 0, None, ())
    folder = store.training_folder(style, key)
    result = models.finetune(pairs, held_out, recipe, folder, store.cache_folder(style), report)
    log = [{name: getattr(row, name) for name in _COLUMNS} for row in result.log]
    inputs = {"curation": curation, "features": features, "catalog": store.records.input(curation, "catalog")}
    record = store.records.add(
        "training",
        style,
        key=key,
        inputs=inputs,
        made_of=identity | {"control": control},
        tables={"training_log": log},
        files={name: folder / name for name in (WEIGHTS, result.weights.name, "result.json")},
        run=run,
    )
    return Trained(record, log, recipe, len(pairs), result.steps_run, result.resumed_from, result.notes)


def export(store: Store, models: Models, style: str, run: str = "") -> Exported:
    """A complete Stable Diffusion pipeline with the newest training merged in, unless it is there."""
    training = store.records.latest("training", style)
    found = store.records.find("model", style, training.key)
    verified: dict[str, float] = {}

    def write(folder: Any) -> None:
        verified["effect"], verified["error"] = models.export(training.folder, folder)

    record = store.records.add(
        "model",
        style,
        key=training.key,
        inputs={"training": training},
        files={} if found else {MODEL: write, "verification.json": lambda path: write_content(verified, path)},
        run=run,
    )
    known = record.json("verification.json")
    return Exported(record, known["effect"], known["error"])


def _pairs(store: Store, curation: Record, control: bool) -> list["TrainingPair"]:
    from fashion_pipeline.ml.training.results import TrainingPair

    wanted = [pair for pair in Pair.read(curation.table("training_pairs")) if pair.kept != control]
    places = training_images(store, store.records.input(curation, "catalog"), wanted)
    return [TrainingPair(places[pair.id], pair.caption, pair.id) for pair in wanted]


def _held_out(store: Store, models: Models, features: Record, strategy: str) -> list["TrainingPair"]:
    """Dev photos, captioned like those trained on."""
    from fashion_pipeline.ml.training.results import TrainingPair

    photos = store.photos(store.records.input(features, "catalog"))
    captions = photo_captions(store, models, features, strategy)
    return [
        TrainingPair(photo.path, captions[photo.id][0], photo.id) for photo in photos_of(photos, Split.DEV, HELD_OUT)
    ]
