"""What was found out about one style, as one self-contained HTML page and as JSON.

The words are in `templates/texts/`, the design in `templates/report.html`; here is what the page needs to be told, and
the arithmetic behind its pictures. Everything but the style may be missing: the page then leaves that section out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import jinja2
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from fashion_pipeline.core.evaluation.statistics import Condition, Interval, bootstrap, paired, paired_scores, scores_of
from fashion_pipeline.core.evaluation.verdicts import (
    AFTER,
    BEFORE,
    GARMENT_MEASURE,
    MIN_PRODUCTS,
    RECOGNISED_MEASURE,
    SPLIT,
    Verdict,
)
from fashion_pipeline.core.features.shuffling import RECOGNISED
from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.reports.pictures import data_uri, web_uri
from fashion_pipeline.core.rows import Model, Role, Split
from fashion_pipeline.core.texts import texts

CONDITIONS = tuple(Condition(model.value, prompt) for model in Model for prompt in ("plain", "best"))
"""The cells of the design, in the order in which every page shows them."""

COMPARISONS = (
    (Condition("specialised", "plain"), Condition("original", "plain")),
    (Condition("original", "best"), Condition("original", "plain")),
    (Condition("specialised", "best"), Condition("original", "best")),
    (Condition("specialised", "best"), Condition("original", "plain")),
    (Condition("specialised", "plain"), Condition("champion", "plain")),
)
"""What is compared with what: training alone, words alone, training on top of words, both together; and the challenger
with the published version."""

SHARES = (RECOGNISED_MEASURE, GARMENT_MEASURE)
"""Measures that are shares of samples, 0 to 1, and have a section of their own."""

ENDS = 5
"""Phrases shown from either end of the list."""

SPLITS = (Split.DEV.value, Split.TEST.value)


@dataclass(frozen=True)
class ComparisonRow:
    """One product of `dev` or `test` and one seed: its photo, and what each condition drew for it."""

    reference: Image.Image | None
    images: Mapping[Condition, Image.Image]
    """The images that exist; a condition that no row has gets no column."""
    caption: str = ""
    """What tells this row from the others: the product's attributes, the seed."""


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
    data_hash: str | None = None
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
    scores: pa.Table | None = None
    """Table `scores`."""
    rows: Sequence[ComparisonRow] = ()
    leaderboard: pa.Table | None = None
    """Table `leaderboard`, best first."""
    formats: pa.Table | None = None
    """Table `formats`, best first."""
    phrases: pa.Table | None = None
    """Table `phrases`, the most helpful first."""
    progress: pa.Table | None = None
    """Table `progress`."""
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


def summary(
    scores: pa.Table,
    *,
    style: str,
    profile: str,
    best: Candidate,
    guidance: float,
    verdict: Verdict | None,
) -> dict[str, Any]:
    """The report as JSON-ready values, from a table `scores`; cells without a score are left out.

    `best` is the best prompt, `guidance` the scale that the profile draws with. `similarity_score` is the raw encoder
    cosine of the best prompt with the original model on `test`, or None.
    """
    cells = list(_cells(scores))
    headline = (*Condition("original", "best"), Role.ENCODER.value, Split.TEST.value)
    return {
        "style": style,
        "profile": profile,
        "optimized_prompt": best.prompt,
        "negative_prompt": best.negative_prompt,
        "guidance_scale": guidance if best.guidance is None else best.guidance,
        "strategy": best.strategy,
        "similarity_score": next((interval.mean for key, interval in cells if key == headline), None),
        "scores": [
            dict(zip(("model", "prompt", "measure", "split"), key, strict=True)) | asdict(interval)
            for key, interval in cells
        ],
        "gains": [
            {
                "model": after.model,
                "prompt": after.prompt,
                "against": before._asdict(),
                "measure": measure,
                "split": split,
                **asdict(interval),
            }
            for after, before, measure, split, interval in _gains(scores)
        ],
        "verdict": verdict.name if verdict else None,
        "reason": verdict.reason if verdict else None,
    }


def measures_of(scores: pa.Table) -> list[str]:
    """The measures of a table `scores`: encoder, judge, then others in the order of their first row."""
    found = dict.fromkeys([*(role.value for role in Role), *scores["measure"].to_pylist()])
    return [name for name in found if name in set(scores["measure"].to_pylist())]


def _cells(scores: pa.Table, column: str = "value") -> Iterator[tuple[tuple[str, str, str, str], Interval]]:
    """Each cell's mean over products; a measure over a set has its value and interval already."""
    sets = {
        (row["model"], row["prompt"], row["measure"], row["split"]): row
        for row in scores.filter(pc.equal(scores["scope"], "set")).to_pylist()
    }
    for split in SPLITS:
        for measure in measures_of(scores):
            for condition in CONDITIONS:
                values = scores_of(scores, condition, measure=measure, split=split, column=column)
                key = (*condition, measure, split)
                if values:
                    yield key, bootstrap(list(values.values()))
                elif key in sets and column == "value":
                    yield key, Interval(sets[key]["value"], sets[key]["low"], sets[key]["high"], 0)


def _gains(scores: pa.Table) -> Iterator[tuple[Condition, Condition, str, str, Interval]]:
    for split in SPLITS:
        for measure in measures_of(scores):
            for after, before in COMPARISONS:
                pairs = paired_scores(scores, after, before, measure=measure, split=split)
                if len(pairs[0]):
                    yield after, before, measure, split, paired(*pairs)


# The page


def render_html(data: ReportData) -> str:
    """The page, complete in itself: no script, no request, every image inside. All text of `data` is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((files("fashion_pipeline") / "templates" / "report.html").read_text("utf-8"))
    return template.render(
        data=data,
        texts=texts()["report"],
        titles=texts()["verdict"]["titles"],
        grid=_grid(data.rows),
        prompts=_prompts(data),
        words=_words(data),
        spent=_spent(data.progress),
        panels=_panels(data.scores, lambda measure: measure not in SHARES),
        shares=_panels(data.scores, SHARES.__contains__),
        gains=_gain_panels(data.scores),
        curve=_curve(data.training_log),
        looks=[(step, data_uri(sheet), _similarity_at(data.training_log, step)) for step, sheet in data.looks],
        deciding=(AFTER, BEFORE, SPLIT),
        min_products=MIN_PRODUCTS,
        recognised=RECOGNISED,
        run_url=_safe_link(data.lineage.run_url),
    )


@dataclass(frozen=True)
class _Mark:
    """An interval and where it is drawn, in percent of an axis."""

    after: Condition
    before: Condition | None
    value: Interval
    axis: tuple[float, float]
    anchored: float | None = None

    def place(self, value: float) -> str:
        low, high = self.axis
        return f"{4 + 92 * (value - low) / (high - low):.2f}%"


@dataclass(frozen=True)
class _Panel:
    """All that one measure says on one split, on one axis."""

    measure: str
    split: str
    marks: list[_Mark]


def _panels(scores: pa.Table | None, wanted: Callable[[str], bool]) -> list[_Panel]:
    if scores is None:
        return []
    cells = dict(_cells(scores))
    anchored = {key: interval.mean for key, interval in _cells(scores, "anchored")}
    panels = []
    for split in SPLITS:
        for measure in filter(wanted, measures_of(scores)):
            own = {key: cell for key, cell in cells.items() if key[2:] == (measure, split)}
            axis = (0.0, 1.0) if measure in SHARES else _axis(own.values())
            marks = [_Mark(Condition(*key[:2]), None, cell, axis, anchored.get(key)) for key, cell in own.items()]
            panels.append(_Panel(measure, split, marks))
    return [panel for panel in panels if panel.marks]


def _gain_panels(scores: pa.Table | None) -> list[_Panel]:
    if scores is None:
        return []
    gains = list(_gains(scores))
    panels = []
    for split in SPLITS:
        for measure in measures_of(scores):
            if measure in SHARES:
                continue
            own = [gain for gain in gains if gain[2:4] == (measure, split)]
            axis = _axis([gain[4] for gain in own], include=0.0)
            panels.append(_Panel(measure, split, [_Mark(after, before, gain, axis) for after, before, *_, gain in own]))
    return [panel for panel in panels if panel.marks]


def _axis(intervals: Iterable[Interval], include: float | None = None) -> tuple[float, float]:
    ends = [end for i in intervals for end in (i.mean, i.low, i.high) if end is not None]
    ends += [] if include is None else [include]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    return (low, high) if high > low else (low - 0.01, high + 0.01)


def _grid(rows: Sequence[ComparisonRow]) -> dict[str, object] | None:
    if not rows:
        return None
    columns = [condition for condition in CONDITIONS if any(condition in row.images for row in rows)]
    return {
        "columns": columns,
        "rows": [
            {
                "caption": row.caption,
                "reference": web_uri(row.reference) if row.reference else None,
                "images": [web_uri(row.images[each]) if each in row.images else None for each in columns],
            }
            for row in rows
        ],
    }


def _prompts(data: ReportData) -> list[dict[str, object]]:
    if data.leaderboard is None:
        return []
    rows = data.leaderboard.to_pylist()
    axis = _axis([_interval(row) for row in rows])
    return [
        row
        | {
            "best": place == 0,
            "thumbnails": [web_uri(image, 128) for image in data.thumbnails.get(row["candidate"], ())][:4],
            "mark": _Mark(Condition("original", "best"), None, _interval(row), axis),
        }
        for place, row in enumerate(rows)
    ]


def _words(data: ReportData) -> list[dict[str, object]]:
    """Two small tables: what each phrase is worth, the ends of the list only; and how the formats compare."""
    found: list[dict[str, object]] = []
    for name, table, label, value in (
        ("phrases", data.phrases, "phrase", "gain"),
        ("formats", data.formats, "format", "mean"),
    ):
        rows = table.to_pylist() if table is not None else []
        rows = rows if len(rows) <= 2 * ENDS else [*rows[:ENDS], *rows[-ENDS:]]
        cells = [Interval(row[value], row["low"], row["high"], row["products"]) for row in rows]
        axis = _axis(cells, 0.0 if value == "gain" else None)
        marks = [
            (row[label], _Mark(Condition("original", "best"), None, cell, axis))
            for row, cell in zip(rows, cells, strict=True)
        ]
        if marks:
            found.append({"name": name, "marks": marks, "signed": value == "gain"})
    return found


def _spent(table: pa.Table | None) -> dict[str, object] | None:
    """A line in a square of 100 x 100: the leader's gain over the plain prompt by images."""
    if table is None or table.num_rows < 2:
        return None
    images, gains = table["images"].to_pylist(), table["gain"].to_pylist()
    bottom, top = min(0.0, *gains), max(*gains, 0.001)
    points = [
        (round(100 * count / images[-1], 2), round(96 - 92 * (gain - bottom) / (top - bottom), 2))
        for count, gain in zip(images, gains, strict=True)
    ]
    return {"points": points, "last": images[-1], "top": top, "bottom": bottom, "gain": gains[-1]}


def _interval(row: Mapping[str, object]) -> Interval:
    return Interval(row["mean"], row["low"], row["high"], row["products"])  # type: ignore[arg-type]


def _similarity_at(log: pa.Table | None, step: int) -> float | None:
    """Of the images drawn at a step to the photos set aside."""
    rows = log.to_pylist() if log is not None else []
    return next((row["similarity"] for row in rows if row["step"] == step), None)


def _curve(log: pa.Table | None) -> dict[str, object] | None:
    """Two lines in a square of 100 x 100, x to the right, y downwards."""
    if log is None or not log.num_rows:
        return None
    steps, losses, held_out = (log[name].to_pylist() for name in ("step", "loss", "held_out_loss"))
    training = [(step, loss) for step, loss in zip(steps, losses, strict=True) if loss is not None]
    measured = [(step, loss) for step, loss in zip(steps, held_out, strict=True) if loss is not None]
    values = [loss for _, loss in training + measured]
    bottom, top = min(values), max(values)
    first, last = min(steps), max(steps)

    def points(line: list[tuple[int, float]]) -> list[tuple[float, float]]:
        return [
            (
                round(100 * (step - first) / max(last - first, 1), 2),
                round(96 - 92 * (loss - bottom) / ((top - bottom) or 1), 2),
            )
            for step, loss in line
        ]

    return {
        "training": points(training),
        "held_out": points(measured),
        "first": first,
        "last": last,
        "bottom": bottom,
        "top": top,
        "ends": (training[0][1], training[-1][1]) if training else None,
        "held_out_ends": (measured[0][1], measured[-1][1]) if measured else None,
    }


def _safe_link(url: str | None) -> str | None:
    return url if url and urlsplit(url).scheme in ("http", "https") else None
