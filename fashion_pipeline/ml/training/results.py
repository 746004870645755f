"""What fine-tuning is given, and what it tells back: plain values. No torch: cheap to import."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fashion_pipeline.core.prompts.requests import Drawing, Request
from fashion_pipeline.core.training.recipe import Recipe


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says where it stands and what mends it."""


class TrainingStoppedError(RuntimeError):
    """Somebody stopped the training; a checkpoint holds what it had learnt."""


class TrainingPair(NamedTuple):
    """A photo, as `load_image` knows it, and the caption it is trained with."""

    path: str
    caption: str
    id: str = ""
    """What the image is, wherever it lies: a content hash. Empty: the hash of the file's bytes is taken."""
    photo: bool = False
    """Whether the id is that of a photo, by its bytes, so that whoever loads it can see if it was replaced."""


@dataclass(frozen=True)
class Validation:
    """What is drawn at intervals, and what it is compared with; photos that nothing else rests on."""

    requests: tuple[Request, ...]
    """An image for each photo."""
    photos: tuple[TrainingPair, ...]
    """In the same order."""
    encoder: str
    """Folder or hub id of the CLIPModel that compares."""
    whole: bool = False
    """Whether it sees images padded to squares."""


@dataclass(frozen=True)
class TrainingJob:
    """A training as a plain value, so that it can be written down for another process."""

    base: str
    """Folder, single file or hub id of a pipeline."""
    pairs: tuple[TrainingPair, ...]
    held_out: tuple[TrainingPair, ...]
    """Photos whose loss is measured, and nothing else."""
    recipe: Recipe
    output: Path
    """Folder of checkpoints and results."""
    cache: Path
    """Folder of encoded images and captions, which other trainings may share."""
    drawing: Drawing
    """How the original draws prior images."""
    validation: Validation | None = None

    def save(self, file: Path) -> None:
        """Write it as JSON."""
        plain = {
            **vars(self),
            "recipe": self.recipe.model_dump(mode="json"),
            "drawing": self.drawing.model_dump(),
            "output": str(self.output),
            "cache": str(self.cache),
            "validation": asdict(self.validation) if self.validation else None,
        }
        file.write_text(json.dumps(plain, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> "TrainingJob":
        """Read what `save` wrote. Raises OSError or ValueError."""
        plain = json.loads(file.read_text(encoding="utf-8"))
        given = plain["validation"]
        return cls(
            base=plain["base"],
            pairs=_pairs(plain["pairs"]),
            held_out=_pairs(plain["held_out"]),
            recipe=Recipe.of(plain["recipe"]),
            output=Path(plain["output"]),
            cache=Path(plain["cache"]),
            drawing=Drawing(**plain["drawing"]),
            validation=given
            and Validation(
                tuple(Request(**request) for request in given["requests"]),
                _pairs(given["photos"]),
                given["encoder"],
                given["whole"],
            ),
        )


def _pairs(rows: list[list[Any]]) -> tuple[TrainingPair, ...]:
    return tuple(TrainingPair(*row) for row in rows)


@dataclass(frozen=True)
class Progress:
    """Where training stands; one row of the training log."""

    step: int
    """Optimizer steps done; 0 is the base as it came."""
    steps: int
    """Optimizer steps in all."""
    loss: float | None
    """Mean training loss since the previous row; None at step 0."""
    held_out_loss: float | None
    """Mean squared error on held-out photos with fixed noise and timesteps; None where it was not measured."""
    learning_rate: float
    gradient_norm: float | None
    """Before clipping; None at step 0."""
    samples_per_second: float | None
    """Images trained on a second since the previous row, measurements left out; None at step 0."""
    similarity: float | None = None
    """Mean cosine of images drawn now to the validation photos; None where none was drawn."""


@dataclass(frozen=True)
class TrainingResult:
    """A finished training. Its folder holds the weights, result.json and the last checkpoints."""

    output: Path
    weights: Path
    """What was learnt, under the names of diffusers."""
    identity: dict[str, Any]
    """Configuration, base and pairs that made it."""
    log: tuple[Progress, ...]
    step: int
    """The step whose weights these are: the best by similarity to the validation photos, or the last."""
    steps_run: int
    """Steps this call computed; fewer than all when it resumed, 0 when it had been finished before."""
    resumed_from: int | None
    """Step of the checkpoint this call went on from."""
    peak_memory: int
    """Bytes: of the device where that is a GPU, else of the process."""
    strength: float
    """How strong what was learnt is in the weights: 1 as it was trained."""
    notes: tuple[str, ...]
    """What the user should know: a damaged checkpoint that was skipped, another number of threads."""

    def save(self, file: Path) -> None:
        """Write everything but the folder as JSON."""
        whole = {**asdict(self), "output": None, "weights": self.weights.name}
        file.write_text(json.dumps(whole, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, file: Path, *, of_this_call: bool = False) -> "TrainingResult":
        """Read what `save` wrote, with no step run unless it tells of this call. Raises OSError or ValueError."""
        whole = json.loads(file.read_text(encoding="utf-8"))
        output = file.parent
        return cls(
            output=output,
            weights=output / whole["weights"],
            identity=whole["identity"],
            log=tuple(Progress(**row) for row in whole["log"]),
            step=whole["step"],
            steps_run=whole["steps_run"] if of_this_call else 0,
            resumed_from=whole["resumed_from"] if of_this_call else None,
            peak_memory=whole["peak_memory"],
            strength=whole.get("strength", 1.0),
            notes=tuple(whole["notes"]),
        )
