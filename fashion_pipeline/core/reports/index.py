"""All styles on one page: the verdicts, what words and training gained, and before and after side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from fashion_pipeline.core.evaluation.decisions import Decision
from fashion_pipeline.core.evaluation.statistics import Condition, Interval
from fashion_pipeline.core.reports.panels import Mark, axis_of
from fashion_pipeline.core.reports.pictures import web_uri
from fashion_pipeline.core.reports.rendering import rendered
from fashion_pipeline.core.texts import texts

STRIP_SIDE = 192


@dataclass(frozen=True)
class StyleEntry:
    """One style of the page."""

    style: str
    page: str | None
    """Where its own page lies, below the index; None where it has none."""
    decision: Decision | None = None
    problem: str | None = None
    """What is damaged, and how to mend it."""
    published: str | None = None
    """The version in use."""
    waiting: str | None = None
    shown: str | None = None
    """The version whose gains and pictures are shown."""
    gains: Sequence[tuple[Condition, str, Interval]] = ()
    """What, by encoder or judge, and how much over the original with the plain prompt."""
    strip: Sequence[tuple[Image.Image | None, Image.Image | None, Image.Image | None]] = ()
    """Photo, before, after."""
    photos: int = 0
    stale: int = 0
    """Withdrawn photos that went into what is shown."""


def render_index(entries: Sequence[StyleEntry], *, profile: str | None = None, created: str | None = None) -> str:
    """The page, complete in itself: no script, no request, every image inside. All text is escaped."""
    axis = axis_of([gain for entry in entries for _, _, gain in entry.gains], include=0.0)
    shown = [
        {
            "entry": entry,
            "marks": [(measure, Mark(after, None, gain, axis)) for after, measure, gain in entry.gains],
            "strip": [[web_uri(image, STRIP_SIDE) if image else None for image in row] for row in entry.strip],
        }
        for entry in entries
    ]
    said = texts()
    return rendered(
        "index.html",
        entries=shown,
        index=said["index"],
        texts=said["report"],
        profile=profile,
        created=created,
    )
