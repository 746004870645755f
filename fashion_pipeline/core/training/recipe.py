"""The knobs of a training, once: the same class in the profile, the launchpad, the command and the trainer."""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

_BOOKKEEPING = {"processes", "checkpoint_every", "checkpoints_kept", "log_every", "held_out_every"}
_RATES = {"learning_rate", "text_learning_rate"}
FINDS_ITS_RATE = "prodigy"
"""The optimizer whose rate is a factor of one that it finds: 1 is what its authors advise."""
_MAIN = {"method", "rank", "alpha", "layers", "steps", "batch_size", "learning_rate", "schedule", "optimizer", "seed"}
_EVER = 10_000_000

STRONGEST = 2.0
"""The largest strength at which a model is drawn with."""

DEFAULTS = 1
"""Raised where a default below changes: hashes leave out what is as usual."""

Layers = Literal["attention", "feed_forward", "convolution"]
Quantisation = Literal["none", "int8", "nf4"]


class Recipe(BaseModel):
    """How to fine-tune. What is not given is as below; intervals and warm-up follow from the number of steps.

    `Recipe.of(values)` raises ValueError that names the field, its value, its range and a value that suits.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    method: Literal["lora", "loha", "lokr", "full"] = Field(
        "lora",
        description="Additions to chosen layers: lora, of low rank (Hu et al., 2021); loha, Hadamard products of two "
        "(Hyeon-Woo et al., 2022); lokr, Kronecker products (Yeh et al., 2024). full: every weight of the denoiser.",
    )
    rank: int = Field(16, ge=1, le=1024, description="Rank of the additions; 4 to 64 suits a style.")
    alpha: float = Field(
        16.0, ge=1e-3, le=4096, description="The additions are scaled by alpha / rank; the rank itself is usual."
    )
    layers: tuple[Layers, ...] = Field(
        ("attention",),
        min_length=1,
        strict=False,
        description="Layers of the denoiser that get additions; feed_forward and convolution hold more detail.",
    )
    lokr_factor: int = Field(
        -1,
        ge=-1,
        le=1024,
        description="Largest size of the smaller factor of a lokr; -1: as near to a square as can be.",
    )
    rslora: bool = Field(
        False,
        description="Scale the additions by alpha / sqrt(rank), which suits ranks above 32 (Kalajdzievski, 2023).",
    )
    dora: bool = Field(False, description="Learn size and direction of the weights apart (Liu et al., 2024).")
    text_learning_rate: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Peak rate of additions to the text encoder, half of learning_rate is usual; 0: it does not learn.",
    )
    steps: int = Field(400, ge=1, le=_EVER, description="Optimizer steps; a few hundred suit a style.")
    batch_size: int = Field(8, ge=1, le=4096, description="Images at a time, as many as memory holds: 4 to 16.")
    gradient_accumulation: int = Field(
        1, ge=1, le=1024, description="Batches whose gradients make one step: a larger batch without its memory."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice instead of keeping them: half the memory, a third more time."
    )
    optimizer: Literal["adamw", "adamw8bit", "adafactor", "prodigy"] = Field(
        "adamw",
        description="adamw; adamw8bit and adafactor need less memory; prodigy finds its rate (learning_rate: 1).",
    )
    learning_rate: float = Field(
        1e-4, ge=1e-8, le=1, description="Peak of the schedule; 1e-4 suits a LoRA, 1e-5 all weights."
    )
    schedule: Literal["cosine", "polynomial", "constant"] = Field(
        "cosine", description="How the rate falls to zero after warm-up: half a cosine, a polynomial, or not at all."
    )
    schedule_power: float = Field(
        1.0, ge=0.1, le=10, description="Exponent of the polynomial schedule; 1 is a straight line."
    )
    warmup_steps: int = Field(
        50, ge=0, le=_EVER, description="Steps in which the learning rate rises from zero; a tenth of them, at most 50."
    )
    weight_decay: float = Field(1e-2, ge=0, le=1, description="Decoupled weight decay; 0 for none.")
    gradient_clip: float = Field(
        1.0, ge=1e-6, le=1e6, description="Largest norm of the gradient of all weights together; 1 is usual."
    )
    ema_decay: float = Field(
        0.0, ge=0, le=0.99999, description="Keep a moving average of the weights, 0.999 say, and use that one; 0: none."
    )
    min_snr_gamma: float = Field(
        5.0, ge=0, le=1000, description="Timesteps weigh min(SNR, gamma) / SNR (Hang et al., 2023); 0: all equally."
    )
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Also shift the noise of whole channels, 0.05 say, for very dark or bright photos."
    )
    prior_images: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Images that the original draws of prior_prompt and that are trained on beside the photos, so that "
        "it forgets less (Ruiz et al., 2023); 0: none.",
    )
    prior_prompt: str = Field("a photo of a garment", description="What the prior images show.")
    prior_weight: float = Field(1.0, ge=0, le=100, description="Weight of their loss beside that of the photos.")
    caption_dropout: float = Field(
        0.1, ge=0, le=1, description="Share of captions left empty; 0.1 keeps classifier-free guidance working."
    )
    tag_dropout: float = Field(
        0.0, ge=0, le=1, description="Share of a caption's parts between commas, the first excepted, that is left out."
    )
    tag_shuffle: bool = Field(False, description="Change the order of a caption's parts, the first excepted.")
    caption_variants: int = Field(
        8, ge=1, le=1024, description="Variants of each caption where its parts are left out or change their order."
    )
    horizontal_flip: bool = Field(
        True, description="Show images mirrored every other time; off for lettering and one-sided garments."
    )
    resolution: int = Field(
        0, ge=0, le=8192, description="Side in pixels of the training images; 0: what the base was trained on."
    )
    fit: Literal["crop", "pad", "buckets"] = Field(
        "crop",
        description="Photos that are not square: crop their ends, pad them in the colour of their edges, or train at "
        "their own shape, in buckets of equal area.",
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Decides initial weights, order, noise and timesteps.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Of frozen weights and computations; what learns is fp32. auto: what is faster there."
    )
    quantize: Quantisation = Field(
        "none",
        description="Keep the frozen weights of linear layers in fewer bits, for a LoRA on a base that is large for "
        "the card: int8 halves them, nf4 quarters them and is coarse.",
    )
    compile: bool = Field(
        False,
        description="Compile the denoiser first (torch.compile): minutes at the start, faster on some GPUs.",
    )
    processes: int = Field(
        1, ge=1, le=64, description="Processes that share each batch, one a device; it must divide batch_size."
    )
    sample_every: int = Field(
        80, ge=0, le=_EVER, description="Steps between images drawn for a look and compared; a fifth of them. 0: none."
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="Which weights are kept: the latest whose images are as close to the validation photos as any, "
        "within one standard error; or the last.",
    )
    strengths: tuple[float, ...] = Field(
        (),
        strict=False,
        description="When training has ended, what was learnt is tried at these strengths, 0.6, 0.8 and 1.2 say, and "
        "the one is kept whose images are closest to the validation photos; 1 unless another is closer by more than "
        "one standard error.",
    )
    patience: int = Field(
        0, ge=0, le=1000, description="Stop after so many looks that were no closer than the closest; 0: never."
    )
    checkpoint_every: int = Field(100, ge=1, le=_EVER, description="Steps between checkpoints; a sixth of them.")
    checkpoints_kept: int = Field(2, ge=1, le=1000, description="Newest checkpoints that are kept; the best stays too.")
    log_every: int = Field(10, ge=1, le=_EVER, description="Steps between rows of the log; a sixtieth of them.")
    held_out_every: int = Field(
        50, ge=0, le=_EVER, description="Steps between held-out losses; a tenth of them. 0: at the two ends only."
    )

    @model_validator(mode="after")
    def _follow(self) -> Self:
        """What is not given follows from the number of steps and the optimizer; it does not count as given by that."""
        derived: dict[str, Any] = {
            "warmup_steps": min(50, self.steps // 10),
            "checkpoint_every": max(1, self.steps // 6),
            "log_every": max(1, self.steps // 60),
            "held_out_every": max(1, self.steps // 10),
            "sample_every": max(1, self.steps // 5),
        }
        derived |= {"learning_rate": 1.0} if self.optimizer == FINDS_ITS_RATE else {}
        self.__dict__.update({name: derived[name] for name in derived.keys() - self.model_fields_set})
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}, more than steps ({self.steps}): choose fewer")
        return self

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> Self:
        if self.batch_size % self.processes:
            raise ValueError(f"processes is {self.processes}, which does not divide batch_size ({self.batch_size})")
        return self

    @model_validator(mode="after")
    def _method_has_what_is_asked_of_it(self) -> Self:
        if self.method == "full" and self.text_learning_rate:
            raise ValueError("method is 'full', but text_learning_rate is for additions such as a LoRA: leave it out")
        if self.method != "lora" and (self.dora or self.rslora):
            raise ValueError(f"method is {self.method!r}, but dora and rslora are for lora: leave them out")
        if wrong := [strength for strength in self.strengths if not 0 < strength <= STRONGEST]:
            raise ValueError(f"strengths has {wrong[0]:g}: choose strengths above 0, up to {STRONGEST:g}")
        if self.strengths and (self.method == "full" or self.dora):
            raise ValueError("strengths are for a lora, loha or lokr without dora: leave them out")
        if self.quantize != "none" and (self.method != "lora" or self.dora):
            raise ValueError(f"quantize is {self.quantize!r}, which is for a LoRA without dora: set it to none")
        return self

    @model_validator(mode="after")
    def _one_rate_is_found(self) -> Self:
        if self.optimizer == FINDS_ITS_RATE and self.text_learning_rate not in (0.0, self.learning_rate):
            raise ValueError(
                f"text_learning_rate is {self.text_learning_rate:g}, but {FINDS_ITS_RATE} finds one rate for all that "
                f"learns: set it to learning_rate ({self.learning_rate:g}), or to 0"
            )
        return self

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """A recipe from plain values; those that are None count as not given. Raises ValueError in one line."""
        try:
            return cls(**{name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            raise ValueError(explained(cls, error)) from error

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> Self:
        """The recipe among other values, such as the identity of a training. Raises ValueError."""
        return cls.of({name: value for name, value in values.items() if name in cls.model_fields})

    def changed(self, values: dict[str, Any]) -> Self:
        """This recipe with some knobs turned; what is not given follows from those.

        The rates of one optimizer are none for another, where one of the two finds its own.
        """
        values_set = {name: getattr(self, name) for name in self.model_fields_set}
        if (self.optimizer == FINDS_ITS_RATE) != ((values.get("optimizer") or self.optimizer) == FINDS_ITS_RATE):
            values_set = {name: value for name, value in values_set.items() if name not in _RATES}
        return self.of(values_set | {name: value for name, value in values.items() if value is not None})

    def differing(self) -> dict[str, Any]:
        """The fields that are not as usual for so many steps: what another release adds is not among them."""
        usual = type(self).of({"steps": self.steps, "optimizer": self.optimizer}).model_dump(mode="json")
        kept = ("steps", "optimizer")
        return {n: v for n, v in self.model_dump(mode="json").items() if n in kept or v != usual[n]}

    def identity(self) -> dict[str, Any]:
        """The fields that determine the weights: all but who works, and when to report and to save. JSON types only."""
        return self.model_dump(mode="json", exclude=_BOOKKEEPING)

    def told(self) -> dict[str, Any]:
        """What a person wants to see of it: the main knobs, and all that are not as usual. JSON types only."""
        usual = type(self).of({"steps": self.steps}).model_dump(mode="json")
        return {n: v for n, v in self.model_dump(mode="json").items() if n in _MAIN or v != usual[n]}


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of the step after `step`: a linear rise over the warm-up, then as the schedule says, to zero."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    share = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    falls: dict[str, float] = {
        "cosine": 0.5 * (1 + math.cos(math.pi * share)),
        "polynomial": (1 - share) ** recipe.schedule_power,
        "constant": 1.0,
    }
    return recipe.learning_rate * falls[recipe.schedule]


def descriptions() -> dict[str, str]:
    """Knob → what it is for, and its range."""
    return {name: _described(schema) for name, schema in Recipe.model_json_schema()["properties"].items()}


def _described(schema: dict[str, Any]) -> str:
    span = f" From {schema['minimum']:g} to {schema['maximum']:g}." if {"minimum", "maximum"} <= schema.keys() else ""
    return f"{schema['description']}{span}"


def explained(model: type[BaseModel], error: ValidationError) -> str:
    """What is wrong with each field: its value, what is allowed, and what it is for."""
    return "; ".join(_explained(model, dict(fault)) for fault in error.errors(include_url=False, include_context=True))


def _explained(model: type[BaseModel], fault: dict[str, Any]) -> str:
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    name = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        return f"{name} is not known: choose among {', '.join(model.model_fields)}"
    if fault["type"] == "missing":
        return f"{name} is missing: add it"
    schema = model.model_json_schema()["properties"][name]
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    kind = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}.get(schema.get("type"), "")
    if "enum" in schema or "const" in schema:
        kind = f"one of {', '.join(map(str, schema.get('enum', [schema.get('const')])))}"
    span = f" from {low:g} to {high:g}" if low is not None and high is not None else ""
    description = schema.get("description", "").rstrip(".")
    wanted = f"it must be {kind}{span}" if kind else str(fault["msg"])
    return f"{name} is {fault['input']!r}: {wanted}{f'; {description}' if description else ''}"
