"""What fine-tuning is told and what it tells back: plain values. No torch: cheap to import."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_BOOKKEEPING = {"checkpoint_every", "log_every", "held_out_every"}


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says where it stands and what mends it."""


class TrainingPair(NamedTuple):
    """A photo, as `load_image` knows it, and the caption it is trained with."""

    path: str
    caption: str


class _Range(NamedTuple):
    """From `low` to `high`, both allowed."""

    low: float
    high: float
    mend: str


_RANGES = {
    "rank": _Range(1, 1024, "4 to 64 suits a style; more learns more and forgets more"),
    "alpha": _Range(1e-3, 4096, "the rank itself (scale 1) is the usual choice"),
    "steps": _Range(1, 10_000_000, "a few hundred suit a style"),
    "batch_size": _Range(1, 4096, "as many as memory holds, 4 to 16"),
    "learning_rate": _Range(1e-8, 1.0, "1e-4 suits a LoRA"),
    "warmup_steps": _Range(0, 10_000_000, "about a twentieth of the steps; 0 for none"),
    "weight_decay": _Range(0.0, 1.0, "0.01 is AdamW's own; 0 for none"),
    "min_snr_gamma": _Range(0.0, 1000.0, "5 is the paper's; 0 switches the weighting off"),
    "gradient_clip": _Range(1e-6, 1e6, "1 is the usual choice"),
    "caption_dropout": _Range(0.0, 1.0, "0.1 keeps classifier-free guidance working; 0 for none"),
    "resolution": _Range(0, 8192, "0 takes the size the base was trained on"),
    "seed": _Range(0, 2**63 - 1, "any whole number from 0"),
    "checkpoint_every": _Range(1, 10_000_000, "every few minutes' worth of steps"),
    "log_every": _Range(1, 10_000_000, "every few seconds' worth of steps"),
    "held_out_every": _Range(0, 10_000_000, "about ten times a run; 0 for at its two ends only"),
}


@dataclass(frozen=True)
class FinetuneConfig:
    """How to fine-tune. Raises ValueError that names the field, its value, its range and a value that suits."""

    method: Literal["lora"] = "lora"
    """lora: low-rank additions to chosen layers (Hu et al., 2021)."""
    rank: int = 16
    """Rank of the additions."""
    alpha: float = 16.0
    """The additions are scaled by alpha / rank."""
    target_modules: tuple[str, ...] = ATTENTION
    """Layers of the UNet that learn, by the end of their names."""
    steps: int = 400
    """Optimizer steps."""
    batch_size: int = 8
    """Images a step."""
    learning_rate: float = 1e-4
    """Peak of warm-up and cosine decay to zero."""
    warmup_steps: int = 20
    """Steps in which the learning rate rises from zero."""
    weight_decay: float = 1e-2
    """AdamW's decoupled weight decay."""
    min_snr_gamma: float = 5.0
    """Timesteps weigh min(SNR, gamma) / SNR, so that easy ones do not dominate (Hang et al., 2023); 0: equally."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient of all weights together."""
    caption_dropout: float = 0.1
    """Share of captions that are replaced by the empty one."""
    horizontal_flip: bool = True
    """Show each image mirrored every other time; switch it off for lettering or one-sided garments."""
    resolution: int = 0
    """Side in pixels of the square training images; 0: what the base was trained on."""
    seed: int = 0
    """Decides initial weights, order of the images, noise and timesteps."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    log_every: int = 10
    """Steps between reports."""
    held_out_every: int = 50
    """Steps between measurements of the held-out loss; 0: at the start and the end only."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the UNet's frozen weights and computations; what learns is always fp32. auto: what the device is good at."""

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            _require_within(name, getattr(self, name), allowed)
        _require_among("method", self.method, ("lora",))
        _require_among("precision", self.precision, ("auto", "fp32", "bf16"))
        if not self.target_modules:
            raise ValueError(f"target_modules is empty: name at least one layer, for example {ATTENTION}")
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}, more than steps ({self.steps}): choose fewer")

    def identity(self) -> dict[str, Any]:
        """The fields that determine the weights: all but how often to report and to save. JSON types only."""
        kept = {name: value for name, value in asdict(self).items() if name not in _BOOKKEEPING}
        return {**kept, "target_modules": list(self.target_modules)}


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


def _require_within(name: str, value: float, allowed: _Range) -> None:
    if not allowed.low <= value <= allowed.high:
        raise ValueError(f"{name} is {value}: it must be from {allowed.low:g} to {allowed.high:g}; {allowed.mend}")
    declared = {field.name: field.type for field in fields(FinetuneConfig)}[name]
    if declared is int and int(value) != value:
        raise ValueError(f"{name} is {value}: it must be a whole number; {allowed.mend}")


def _require_among(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(allowed)}")
