"""Rows that travel between the stages: photos, samples and scores, and the names that their columns take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

import pyarrow as pa


class Split(StrEnum):
    """What a photo may be used for."""

    SEARCH = "search"
    """Choosing prompts and training."""
    DEV = "dev"
    """The verdict."""
    TEST = "test"
    """Only reported."""


class Role(StrEnum):
    """Which of the two image encoders."""

    ENCODER = "encoder"
    """Chooses prompts, samples and training images."""
    JUDGE = "judge"
    """Never chooses anything; only evaluates."""


class Model(StrEnum):
    """Which generator drew an image."""

    ORIGINAL = "original"
    SPECIALISED = "specialised"
    CHAMPION = "champion"
    """The version of the style that is published while another one is evaluated."""
    PHOTOS = "photos"
    """None: the photos themselves, where a measure of a set has a value for them."""


class Purpose(StrEnum):
    """What else an image may be drawn for than search, dev and test."""

    SEEDS = "seeds"
    """More seeds of dev products: what choosing among several images is worth."""
    OTHERS = "others"
    """The plain prompt of another style: whether the model still draws it."""


class Origin(StrEnum):
    """Where a training image comes from."""

    REFERENCE = "reference"
    SAMPLE = "sample"


class _Readable:
    """A dataclass that a table's rows fit."""

    @classmethod
    def read(cls, table: pa.Table) -> Sequence[Self]:
        """The rows of a table with the columns of the class."""
        return [cls(**row) for row in table.to_pylist()]


@dataclass(frozen=True)
class Photo:
    """A reference photo of a style."""

    id: str
    """Content hash."""
    product_group: str
    """The unit of splits and of statistics."""
    split: str
    product: str = ""
    path: str = ""
    """Where it lies, absolute."""
    caption: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample(_Readable):
    """One image that was drawn, and the photo it is compared with: a row of table `samples` or `evaluation_samples`."""

    id: str
    """Hash of all that determines the image."""
    model: str
    """Fingerprint of the generator."""
    model_name: str
    prompt_name: str
    candidate: str
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance: float
    width: int
    height: int
    reference: str
    product_group: str
    split: str
    purpose: str


@dataclass(frozen=True)
class Score(_Readable):
    """What a measure says of one product (scope product), or of all of them together (scope set)."""

    model: str
    prompt: str
    measure: str
    """encoder or judge similarity, or another measure of `core.evaluation`."""
    scope: str
    """product or set"""
    split: str
    product_group: str | None
    value: float
    low: float | None = None
    """Ends of the 95 % interval of a measure over a set; a product has none of its own."""
    high: float | None = None
    anchored: float | None = None


@dataclass(frozen=True)
class Pair(_Readable):
    """An image, a caption it may be trained with, and why: a row of table `training_pairs`."""

    id: str
    origin: str
    path: str
    """As the catalog lists it; empty for a sample, which is found by its id."""
    caption: str
    kept: bool
    """True: curated; False: the random control of equal size."""
    score: float
    why: str


def rows_of(items: Iterable[Sample] | Iterable[Score] | Iterable[Pair]) -> list[dict[str, Any]]:
    """Rows for `core.tables.rows_to_table`."""
    return [asdict(item) for item in items]
