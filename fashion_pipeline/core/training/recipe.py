"""The knobs of a training, once: the same class in the profile, the launchpad, the command and the trainer."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")

_BOOKKEEPING = {"checkpoint_every", "log_every", "held_out_every"}
_EVER = 10_000_000


class Recipe(BaseModel):
    """How to fine-tune. What is not given is as below; intervals and warm-up follow from the number of steps.

    `Recipe.of(values)` raises ValueError that names the field, its value, its range and a value that suits.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    method: Literal["lora"] = Field("lora", description="lora: low-rank additions to chosen layers (Hu et al., 2021).")
    rank: int = Field(16, ge=1, le=1024, description="Rank of the additions; 4 to 64 suits a style.")
    alpha: float = Field(
        16.0, ge=1e-3, le=4096, description="The additions are scaled by alpha / rank; the rank itself is usual."
    )
    target_modules: tuple[str, ...] = Field(
        ATTENTION, min_length=1, strict=False, description="Layers of the UNet that learn, by the end of their names."
    )
    steps: int = Field(400, ge=1, le=_EVER, description="Optimizer steps; a few hundred suit a style.")
    batch_size: int = Field(8, ge=1, le=4096, description="Images a step, as many as memory holds: 4 to 16.")
    learning_rate: float = Field(
        1e-4, ge=1e-8, le=1, description="Peak of warm-up and cosine decay to zero; 1e-4 suits a LoRA."
    )
    warmup_steps: int = Field(
        50, ge=0, le=_EVER, description="Steps in which the learning rate rises from zero; a tenth of them, at most 50."
    )
    weight_decay: float = Field(1e-2, ge=0, le=1, description="AdamW's decoupled weight decay; 0 for none.")
    min_snr_gamma: float = Field(
        5.0, ge=0, le=1000, description="Timesteps weigh min(SNR, gamma) / SNR (Hang et al., 2023); 0: all equally."
    )
    gradient_clip: float = Field(
        1.0, ge=1e-6, le=1e6, description="Largest norm of the gradient of all weights together; 1 is usual."
    )
    caption_dropout: float = Field(
        0.1, ge=0, le=1, description="Share of captions left empty; 0.1 keeps classifier-free guidance working."
    )
    horizontal_flip: bool = Field(
        True, description="Show images mirrored every other time; off for lettering and one-sided garments."
    )
    resolution: int = Field(
        0, ge=0, le=8192, description="Side in pixels of the square training images; 0: what the base was trained on."
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Decides initial weights, order, noise and timesteps.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Of frozen weights and computations; what learns is fp32. auto: what is faster there."
    )
    checkpoint_every: int = Field(100, ge=1, le=_EVER, description="Steps between checkpoints; a sixth of them.")
    log_every: int = Field(10, ge=1, le=_EVER, description="Steps between rows of the log; a sixtieth of them.")
    held_out_every: int = Field(
        50, ge=0, le=_EVER, description="Steps between held-out losses; a tenth of them. 0: at the two ends only."
    )

    @model_validator(mode="before")
    @classmethod
    def _by_the_number_of_steps(cls, values: Any) -> Any:
        steps = values.get("steps", cls.model_fields["steps"].default) if isinstance(values, dict) else None
        if not isinstance(steps, int):
            return values
        derived = {
            "warmup_steps": min(50, steps // 10),
            "checkpoint_every": max(1, steps // 6),
            "log_every": max(1, steps // 60),
            "held_out_every": max(1, steps // 10),
        }
        return derived | values

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}, more than steps ({self.steps}): choose fewer")
        return self

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """A recipe from plain values; those that are None count as not given. Raises ValueError in one line."""
        try:
            return cls(**{name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            raise ValueError(explained(cls, error)) from error

    def changed(self, values: dict[str, Any]) -> Self:
        """This recipe with some knobs turned; what follows from the number of steps follows the new one."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        if values.get("steps") is not None:
            own = {name: value for name, value in own.items() if name not in _BOOKKEEPING | {"warmup_steps"}}
        return self.of(own | {name: value for name, value in values.items() if value is not None})

    def identity(self) -> dict[str, Any]:
        """The fields that determine the weights: all but how often to report and to save. JSON types only."""
        return self.model_dump(mode="json", exclude=_BOOKKEEPING)


def described(name: str) -> str:
    """What a knob is for, and its range."""
    schema = Recipe.model_json_schema()["properties"][name]
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
    told = schema.get("description", "").rstrip(".")
    wanted = f"it must be {kind}{span}" if kind else str(fault["msg"])
    return f"{name} is {fault['input']!r}: {wanted}{f'; {told}' if told else ''}"
