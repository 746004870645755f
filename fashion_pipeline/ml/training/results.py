"""What fine-tuning is given beside its recipe, and what it tells back: plain values. No torch: cheap to import."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says where it stands and what mends it."""


class TrainingPair(NamedTuple):
    """A photo, as `load_image` knows it, and the caption it is trained with."""

    path: str
    caption: str
    id: str = ""
    """What the image is, wherever it lies: a content hash. Empty: the hash of the file's bytes is taken."""


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


@dataclass(frozen=True)
class TrainingResult:
    """A finished training. Its folder holds the weights, result.json and the last checkpoints."""

    output: Path
    weights: Path
    """LoRA weights in diffusers' format with the adapter's metadata."""
    identity: dict[str, Any]
    """Configuration, base and pairs that made it."""
    log: tuple[Progress, ...]
    steps_run: int
    """Steps this call computed; fewer than all when it resumed, 0 when it had been finished before."""
    resumed_from: int | None
    """Step of the checkpoint this call went on from."""
    notes: tuple[str, ...]
    """What the user should know: a damaged checkpoint that was skipped, another number of threads."""

    @property
    def held_out_losses(self) -> list[tuple[int, float]]:
        """(step, loss) of each measurement, the base first."""
        return [(row.step, row.held_out_loss) for row in self.log if row.held_out_loss is not None]

    def save(self, file: Path) -> None:
        """Write everything but the paths as JSON."""
        whole = {**asdict(self), "output": None, "weights": self.weights.name}
        file.write_text(json.dumps(whole, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> "TrainingResult":
        """Read what `save` wrote, with no step run. Raises OSError or ValueError for a damaged file."""
        whole = json.loads(file.read_text(encoding="utf-8"))
        log = tuple(Progress(**row) for row in whole["log"])
        output = file.parent
        return cls(output, output / whole["weights"], whole["identity"], log, 0, None, tuple(whole["notes"]))
