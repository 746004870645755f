"""Everything behind a published version on one page: photos, captions, prompts, seeds, scores and the runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fashion_pipeline.core.evaluation.decisions import Decision
from fashion_pipeline.core.evaluation.report import Cell
from fashion_pipeline.core.reports.rendering import rendered
from fashion_pipeline.core.texts import texts


@dataclass(frozen=True)
class TrainedImage:
    """One image that the version was trained on."""

    id: str
    origin: str
    captions: Sequence[str]
    why: str
    picture: str | None
    """Address; None where it must not be shown."""


@dataclass(frozen=True)
class DrawnImage:
    """One sample of the evaluation."""

    id: str
    model: str
    prompt_name: str
    prompt: str
    seed: int
    picture: str
    scores: Mapping[str, float]
    """encoder, judge → cosine to the photo's product."""


@dataclass(frozen=True)
class JudgedProduct:
    """A product on which models were compared."""

    photo: str
    """Id of the photo that its samples are compared with."""
    split: str
    picture: str | None
    samples: Sequence[DrawnImage]


@dataclass(frozen=True)
class Source:
    """A record behind the version."""

    kind: str
    key: str
    created: str
    run: str
    """Id of the run that made it."""
    run_link: str


@dataclass(frozen=True)
class Trail:
    """What the page shows; of what is long, one part at a time."""

    style: str
    version: str
    created: str
    decision: Decision | None
    in_use: bool
    report: str
    """Address of the version's report."""
    trained: Sequence[TrainedImage]
    trained_count: int
    prompts: Sequence[Mapping[str, Any]]
    """Rows of table `leaderboard`."""
    products: Sequence[JudgedProduct]
    products_count: int
    scores: Sequence[Cell]
    records: Sequence[Source]
    folder: str
    part: int = 1
    parts: int = 1
    others: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """Name and address of the style's other versions."""


def render_trail(trail: Trail) -> str:
    """The page. It asks the server that it came from for its pictures, and for nothing else. All text is escaped."""
    said = texts()
    return rendered("trail.html", trail=trail, said=said["trail"], texts=said["report"])
