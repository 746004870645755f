"""Intervals and curves of the page: what is drawn where, in percent of an axis or of a square."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image

from fashion_pipeline.core.evaluation import measures
from fashion_pipeline.core.evaluation.measures import Measure
from fashion_pipeline.core.evaluation.statistics import Condition, Interval
from fashion_pipeline.core.evaluation.verdicts import AFTER, BEFORE, CHAMPION, PHOTOS, SPLIT
from fashion_pipeline.core.prompts.growing import GROWN
from fashion_pipeline.core.reports.figures import OTHERS, SPLITS, cells, gains
from fashion_pipeline.core.reports.pictures import data_uri, web_uri

SIMILARITIES = (measures.ENCODER, measures.JUDGE)
"""Measures whose gains are shown, and on which the verdict rests."""

SHOWN = (measures.RECOGNISED, measures.GARMENT)
"""Measures of whether the pictures show what they should."""

SETS = (
    measures.PROMPT,
    measures.DIVERSITY,
    measures.COVERED,
    measures.DISTANCE,
    measures.CONSISTENCY,
    measures.COPIED,
    measures.REPEATED,
    measures.FLAT,
)
"""What else is said of the samples, in one table: on the split that decides, with the plain prompt."""

SHOWN_EXPLORED = 12
"""Prompts shown of those that were looked at."""

ENDS = 5
"""Phrases shown from either end of the list."""


@dataclass(frozen=True)
class Mark:
    """An interval and where it is drawn, in percent of an axis."""

    after: Condition
    before: Condition | None
    value: Interval
    axis: tuple[float, float]
    anchored: float | None = None

    def place(self, value: float) -> str:
        """Where a value lies."""
        low, high = self.axis
        return f"{4 + 92 * (value - low) / (high - low):.2f}%"


@dataclass(frozen=True)
class Panel:
    """All that one measure says on one split, on one axis."""

    measure: str
    split: str
    marks: list[Mark]


def condition_panels(scores: pa.Table | None, wanted: Sequence[Measure]) -> list[Panel]:
    """A panel for each measure and split, with a line for each model and prompt."""
    if scores is None:
        return []
    measured = dict(cells(scores))
    anchored = {key: interval.mean for key, interval in cells(scores, "anchored")}
    panels = []
    for split in SPLITS:
        for measure in wanted:
            cells_here = {
                key: cell
                for key, cell in measured.items()
                if key[2:] == (measure.name, split) and Condition(*key[:2]) not in OTHERS
            }
            axis = (0.0, 1.0) if measure.kind == "share" else axis_of(cells_here.values())
            marks = [Mark(Condition(*key[:2]), None, cell, axis, anchored.get(key)) for key, cell in cells_here.items()]
            panels.append(Panel(measure.name, split, marks))
    return [panel for panel in panels if panel.marks]


def gain_panels(scores: pa.Table | None) -> list[Panel]:
    """A panel for encoder and judge on each split, with a line for each comparison."""
    if scores is None:
        return []
    measured = list(gains(scores))
    panels = []
    for split in SPLITS:
        for measure in SIMILARITIES:
            gains_here = [gain for gain in measured if gain[2:4] == (measure.name, split)]
            axis = axis_of([gain[4] for gain in gains_here], include=0.0)
            marks = [Mark(after, before, gain, axis) for after, before, *_, gain in gains_here]
            panels.append(Panel(measure.name, split, marks))
    return [panel for panel in panels if panel.marks]


def set_table(scores: pa.Table | None) -> dict[str, object] | None:
    """Measures of sets with the plain prompt: a column for each model and for the photos, a row for each measure."""
    if scores is None:
        return None
    measured = {key[:3]: cell for key, cell in cells(scores) if key[3] == SPLIT}
    columns = [
        condition
        for condition in (BEFORE, AFTER, CHAMPION, PHOTOS)
        if any((*condition, measure.name) in measured for measure in SETS)
    ]
    cells_of = {measure: [measured.get((*condition, measure.name)) for condition in columns] for measure in SETS}
    rows = [
        {"measure": measure.name, "better": measure.better, "share": measure.kind == "share", "cells": row}
        for measure, row in cells_of.items()
        if any(row)
    ]
    return {"columns": columns, "rows": rows} if rows else None


def cost_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Best-of-n as `core.evaluation.best_of.equal_cost` has it, with intervals that can be drawn."""
    names = ("original", "specialised", "gain", "one_against")
    intervals = [{name: Interval(**row[name]) for name in names} | {"images": row["images"]} for row in rows]
    axis = axis_of([row["gain"] for row in intervals], include=0.0)
    return [row | {"mark": Mark(AFTER, BEFORE, row["gain"], axis)} for row in intervals]


def attribute_panels(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """A small table for each facet: what products with each value gained, by encoder and judge."""
    by_facet: dict[str, list[tuple[str, Mark, Interval]]] = {}
    judged = [Interval(**row["judge"]) for row in rows]
    axis = axis_of(judged, include=0.0)
    for row, judge in zip(rows, judged, strict=True):
        line = (row["value"], Mark(AFTER, BEFORE, judge, axis), Interval(**row["encoder"]))
        by_facet.setdefault(row["facet"], []).append(line)
    return [{"facet": facet, "lines": lines} for facet, lines in by_facet.items()]


def axis_of(intervals: Iterable[Interval], include: float | None = None) -> tuple[float, float]:
    """The least and greatest value to be drawn; never of length zero."""
    ends = [end for i in intervals for end in (i.mean, i.low, i.high) if end is not None]
    ends += [] if include is None else [include]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    return (low, high) if high > low else (low - 0.01, high + 0.01)


def prompt_entries(
    leaderboard: pa.Table | None, thumbnails: Mapping[str, Sequence[Image.Image]]
) -> list[dict[str, object]]:
    """The prompts of a leaderboard, best first, each with some of its images."""
    if leaderboard is None:
        return []
    rows = leaderboard.to_pylist()
    axis = axis_of([_interval(row) for row in rows])
    return [
        row
        | {
            "best": place == 0,
            "thumbnails": [web_uri(image, 128) for image in thumbnails.get(row["candidate"], ())][:4],
            "mark": Mark(Condition("original", "best"), None, _interval(row), axis),
        }
        for place, row in enumerate(rows)
    ]


def chosen_and_held_out(leaderboard: pa.Table | None, scores: pa.Table | None) -> dict[str, float] | None:
    """The best prompt's mean similarity by the encoder on the photos it was chosen on, on `dev` and on `test`."""
    if leaderboard is None or not leaderboard.num_rows or scores is None:
        return None
    best = Condition("original", "best")
    held_out = {key[3]: cell.mean for key, cell in cells(scores) if key[:3] == (*best, measures.ENCODER.name)}
    if not all(split in held_out for split in SPLITS):
        return None
    return {"search": leaderboard["mean"][0].as_py(), **{split: held_out[split] for split in SPLITS}}


def explored_prompts(explored: pa.Table | None, thumbnails: Mapping[str, bytes]) -> dict[str, object] | None:
    """The prompts of table `explored` that came closest, each with a thumbnail (WebP) and what it was grown from."""
    if explored is None or not explored.num_rows:
        return None
    rows = explored.to_pylist()
    prompts = {row["candidate"]: row["prompt"] for row in rows}
    shown = [
        row
        | {
            "grown_from": prompts.get(row["parent"]) if row["strategy"] == GROWN else None,
            "thumbnail": data_uri(thumbnails[row["prompt"]]) if row["prompt"] in thumbnails else None,
        }
        for row in rows[:SHOWN_EXPLORED]
    ]
    return {"count": len(rows), "shown": shown}


def word_panels(phrases: pa.Table | None, formats: pa.Table | None) -> list[dict[str, object]]:
    """Two small tables: what each phrase is worth, the ends of the list only; and how the formats compare."""
    panels: list[dict[str, object]] = []
    for name, table, label, value in (
        ("phrases", phrases, "phrase", "gain"),
        ("formats", formats, "format", "mean"),
    ):
        rows = table.to_pylist() if table is not None else []
        rows = rows if len(rows) <= 2 * ENDS else [*rows[:ENDS], *rows[-ENDS:]]
        cells = [Interval(row[value], row["low"], row["high"], row["products"]) for row in rows]
        axis = axis_of(cells, 0.0 if value == "gain" else None)
        marks = [
            (row[label], Mark(Condition("original", "best"), None, cell, axis))
            for row, cell in zip(rows, cells, strict=True)
        ]
        if marks:
            panels.append({"name": name, "marks": marks, "signed": value == "gain"})
    return panels


def spent(table: pa.Table | None) -> dict[str, object] | None:
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


def similarity_at(log: pa.Table | None, step: int) -> float | None:
    """Of the images drawn at a step to the photos set aside."""
    rows = log.to_pylist() if log is not None else []
    return next((row["similarity"] for row in rows if row["step"] == step), None)


def curve(log: pa.Table | None) -> dict[str, object] | None:
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
