"""What is asked of a generator, and the identity of what comes back. No torch: cheap to import."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from pydantic import BaseModel, ConfigDict, Field

SIDE_MULTIPLE = 8


class Drawing(BaseModel):
    """How samples are drawn: the section `[generation]` of a profile."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    image_size: int = Field(ge=SIDE_MULTIPLE, le=4096, multiple_of=8, description="Width and height in pixels.")
    steps: int = Field(ge=1, le=1000, description="Denoising steps.")
    guidance: float = Field(
        ge=0, le=100, description="Classifier-free guidance scale (Ho & Salimans 2022); 1 switches it off."
    )
    batch_size: int = Field(
        ge=1, le=1024, description="Images drawn together; fixed, because the last bits of an image depend on it."
    )
    offload: bool = Field(
        False, description="Keep only the part of the base that is at work on the device: slower, much less memory."
    )


@dataclass(frozen=True)
class Request:
    """One image: the same request at the same batch shape on the same machine is the same image.

    Raises ValueError for less than one step, a side that is no positive multiple of 8, or a seed torch cannot take.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    """0 to 2**63 - 1."""
    steps: int = 25
    """Denoising steps."""
    guidance: float = 7.5
    """Classifier-free guidance (Ho & Salimans, 2022); at 1 or less the negative prompt plays no part."""
    width: int = 512
    """Pixels, a multiple of 8."""
    height: int = 512
    """Pixels, a multiple of 8."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}: ask for 1 or more")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}: choose one from 0 to 2**63 - 1")
        for side in ("width", "height"):
            pixels = getattr(self, side)
            if pixels < SIDE_MULTIPLE or pixels % SIDE_MULTIPLE:
                raise ValueError(f"{side} is {pixels} pixels: choose a positive multiple of {SIDE_MULTIPLE}")


def alike(requests: Sequence[Request]) -> list[list[int]]:
    """Indices of requests that can share a batch: equal steps, guidance and size."""
    groups: dict[tuple[int, float, int, int], list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault((request.steps, request.guidance, request.width, request.height), []).append(index)
    return list(groups.values())


@dataclass(frozen=True)
class GeneratorIdentity:
    """All that determines an image beside its request: what draws, and how it computes.

    The batch shape and what `computing` names (precision, memory format, attention, versions of the libraries) are part
    of it because they change an image by one or two grey levels.
    """

    generator: str
    """Fingerprint."""
    batch_shape: int
    scheduler: Mapping[str, object]
    computing: Mapping[str, object]

    def smaller(self) -> "list[GeneratorIdentity]":
        """The same at the batch shapes that are left when memory runs out, largest first."""
        shapes = [self.batch_shape >> halvings for halvings in range(1, self.batch_shape.bit_length())]
        return [replace(self, batch_shape=shape) for shape in shapes]

    def sample_id(self, request: Request) -> str:
        """32 hexadecimal digits: the identity of the image that it draws for a request."""
        made_of = {
            "generator": self.generator,
            "request": asdict(request),
            "batch_shape": self.batch_shape,
            "scheduler": dict(self.scheduler),
            "computing": dict(self.computing),
        }
        return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()[:32]
