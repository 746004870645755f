"""What was found out about one style, as one self-contained HTML page.

The words are in `templates/texts/`, the design in `templates/report.html`, the figures in `figures`, what is drawn
where in `panels`. Everything but the style may be missing: the page then leaves that section out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from PIL import Image

from fashion_pipeline.core.evaluation.decisions import Decision, Gains
from fashion_pipeline.core.evaluation.statistics import Condition
from fashion_pipeline.core.evaluation.verdicts import AFTER, BEFORE, MEMORISED_SHARE, MIN_PRODUCTS, SPLIT, Verdict
from fashion_pipeline.core.features.shuffling import RECOGNISED
from fashion_pipeline.core.reports import panels
from fashion_pipeline.core.reports.figures import CONDITIONS
from fashion_pipeline.core.reports.pictures import data_uri, web_uri
from fashion_pipeline.core.reports.rendering import rendered, safe_link
from fashion_pipeline.core.texts import texts

PICTURE_SIDE = 512
"""Pixels of the longer side of the pictures that are compared; smaller ones keep their size."""


@dataclass(frozen=True)
class ComparisonRow:
    """One product of `dev` or `test` and one seed: its photo, and what each condition drew for it."""

    reference: Image.Image | None
    images: Mapping[Condition, Image.Image]
    """The images that exist; a condition that no row has gets no column."""
    caption: str = ""
    """What tells this row from the others: the product's attributes, the seed."""


@dataclass(frozen=True)
class CopyPair:
    """A sample of the specialised model and the training photo that it is nearest to."""

    sample: Image.Image
    photo: Image.Image | None
    copied: bool
    """Nearer than the limit, by either distance."""
    distances: Mapping[str, tuple[float, float]]
    """judge or colour → distance and limit, where this is the nearest photo."""


@dataclass(frozen=True)
class Loading:
    """Where a model lies, and how it is loaded."""

    folder: str
    code: str
    """Lines of Python for stock diffusers."""


@dataclass(frozen=True)
class Lineage:
    """Where the page's figures come from."""

    photos: Mapping[str, int] = field(default_factory=dict)
    """Split → number of photos."""
    rejects: int | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    """Role (generator, encoder, judge, specialised) → fingerprint or name."""
    run_id: str | None = None
    run_url: str | None = None
    code_version: str | None = None
    created: str | None = None
    """Date and time, as it should be shown."""
    training_run: str | None = None
    """The run that trained the weights, where another one found them finished."""
    records: Mapping[str, str] = field(default_factory=dict)
    """Kind → key of the records that the page was made from."""


@dataclass(frozen=True)
class ReportData:
    """All that the page of one style can show."""

    style: str
    profile: str | None = None
    verdict: Verdict | None = None
    """None where no specialised model exists."""
    decision: Decision | None = None
    """None also where a file was evaluated that is never published."""
    prompt_verdict: Verdict | None = None
    """On the best prompt against the plain one, where no model was trained."""
    note: str | None = None
    """What must be known before any figure is read, such as that the encoder does not see the garments."""
    plain_prompt: str | None = None
    optimized_prompt: str | None = None
    negative_prompt: str | None = None
    guidance: float | None = None
    """Of the best prompt, where it is not the profile's."""
    strategy: str | None = None
    model: Loading | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    """Name (styles, trail, run) → address below the web server of the UI."""
    scores: pa.Table | None = None
    """Table `scores`."""
    rows: Sequence[ComparisonRow] = ()
    equal_cost: Sequence[Mapping[str, Any]] = ()
    """As `core.evaluation.best_of.equal_cost` has it."""
    attributes: Sequence[Mapping[str, Any]] = ()
    """Gains by attribute, as the JSON report has them."""
    copies: Sequence[CopyPair] = ()
    """What comes closest to a training photo, the closest first."""
    leaderboard: pa.Table | None = None
    """Table `leaderboard`, best first."""
    formats: pa.Table | None = None
    """Table `formats`, best first."""
    phrases: pa.Table | None = None
    """Table `phrases`, the most helpful first."""
    progress: pa.Table | None = None
    """Table `progress`."""
    among_photos: float | None = None
    """Mean encoder cosine of search photos of different products: what a real photo of the style scores."""
    explored: pa.Table | None = None
    """Table `explored`, the closest first."""
    look_thumbnails: Mapping[str, bytes] = field(default_factory=dict)
    """Prompt → WebP of what it drew when it was looked at."""
    thumbnails: Mapping[str, Sequence[Image.Image]] = field(default_factory=dict)
    """Candidate id → some of its images."""
    training_log: pa.Table | None = None
    """Table `training_log`."""
    recipe: Mapping[str, object] = field(default_factory=dict)
    weights_step: int | None = None
    """The optimizer step whose weights were kept."""
    looks: Sequence[tuple[int, bytes]] = ()
    """Step and PNG of images that were drawn during training."""
    lineage: Lineage = field(default_factory=Lineage)


def render_html(data: ReportData) -> str:
    """The page, complete in itself: no script, no request, every image inside. All text of `data` is escaped."""
    return rendered(
        "report.html",
        data=data,
        texts=texts()["report"],
        titles=texts()["verdict"]["titles"],
        answers=_answers(data.decision),
        names=texts()["verdict"]["names"],
        grid=_grid(data.rows),
        pairs=[(pair, web_uri(pair.sample), web_uri(pair.photo) if pair.photo else None) for pair in data.copies],
        prompts=panels.prompt_entries(data.leaderboard, data.thumbnails),
        held_out=panels.chosen_and_held_out(data.leaderboard, data.scores),
        explored=panels.explored_prompts(data.explored, data.look_thumbnails),
        words=panels.word_panels(data.phrases, data.formats),
        spent=panels.spent(data.progress),
        panels=panels.condition_panels(data.scores, panels.SIMILARITIES),
        shares=panels.condition_panels(data.scores, panels.SHOWN),
        sets=panels.set_table(data.scores),
        costs=panels.cost_rows(data.equal_cost),
        attributes=panels.attribute_panels(data.attributes),
        gains=panels.gain_panels(data.scores),
        curve=panels.curve(data.training_log),
        looks=[(step, data_uri(sheet), panels.similarity_at(data.training_log, step)) for step, sheet in data.looks],
        deciding=(AFTER, BEFORE, SPLIT),
        min_products=MIN_PRODUCTS,
        recognised=RECOGNISED,
        memorised=MEMORISED_SHARE,
        run_url=safe_link(data.lineage.run_url),
    )


def _answers(decision: Decision | None) -> list[tuple[str, Gains]]:
    """What words reach, and what training adds: each by encoder and judge."""
    names = ("words", "beyond_words", "training", "against_champion")
    return [(name, getattr(decision, name)) for name in names if decision and getattr(decision, name)]


def _grid(rows: Sequence[ComparisonRow]) -> dict[str, object] | None:
    if not rows:
        return None
    columns = [condition for condition in CONDITIONS if any(condition in row.images for row in rows)]
    return {
        "columns": columns,
        "rows": [
            {
                "caption": row.caption,
                "reference": web_uri(row.reference, PICTURE_SIDE) if row.reference else None,
                "images": [web_uri(row.images[each], PICTURE_SIDE) if each in row.images else None for each in columns],
            }
            for row in rows
        ],
    }
