"""The figures of one style: every cell with its interval, what is compared with what, and the report as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from fashion_pipeline.core.evaluation.best_of import COUNTS, best_of, equal_cost
from fashion_pipeline.core.evaluation.measures import MEASURES
from fashion_pipeline.core.evaluation.report import Cell, EvaluationReport, Gain
from fashion_pipeline.core.evaluation.statistics import (
    Condition,
    Interval,
    bootstrap,
    paired,
    paired_scores,
    scores_of,
    set_score,
    share,
)
from fashion_pipeline.core.evaluation.verdicts import PHOTOS, Verdict
from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.rows import Model, Role, Split

CONDITIONS = tuple(
    Condition(model.value, prompt)
    for model in (Model.ORIGINAL, Model.SPECIALISED, Model.CHAMPION)
    for prompt in ("plain", "best")
)
"""The cells of the design, in the order in which every page shows them."""

OTHERS = tuple(Condition(model.value, "others") for model in (Model.ORIGINAL, Model.SPECIALISED))
"""The plain prompts of other styles."""

SPLITS = (Split.DEV.value, Split.TEST.value)

COMPARISONS = (
    (Condition("specialised", "plain"), Condition("original", "plain")),
    (Condition("original", "best"), Condition("original", "plain")),
    (Condition("specialised", "best"), Condition("original", "best")),
    (Condition("specialised", "best"), Condition("original", "plain")),
    (Condition("specialised", "plain"), Condition("champion", "plain")),
    (Condition("specialised", "others"), Condition("original", "others")),
)
"""What is compared with what: training alone, words alone, training on top of words, both together; the challenger
with the published version; and, for other styles, what training has forgotten."""


def summary(
    scores: pa.Table,
    *,
    style: str,
    profile: str,
    best: Candidate,
    guidance: float,
    verdict: Verdict | None,
    **more: Any,
) -> EvaluationReport:
    """The report on a table `scores`; cells without a score are left out.

    `best` is the best prompt, `guidance` the scale that the profile draws with, `more` further fields of the report.
    """
    measured = list(cells(scores))
    headline = (*Condition("original", "best"), Role.ENCODER.value, Split.TEST.value)
    return EvaluationReport(
        style=style,
        profile=profile,
        optimized_prompt=best.prompt,
        negative_prompt=best.negative_prompt,
        guidance_scale=guidance if best.guidance is None else best.guidance,
        strategy=best.strategy,
        similarity_score=next((interval.mean for key, interval in measured if key == headline), None),
        scores=[
            Cell(model=model, prompt=prompt, measure=measure, split=split, **asdict(interval))
            for (model, prompt, measure, split), interval in measured
        ],
        gains=[
            Gain(**after._asdict(), against=before, measure=measure, split=split, **asdict(interval))
            for after, before, measure, split, interval in gains(scores)
        ],
        equal_cost=equal_cost(scores),
        verdict=verdict.name if verdict else None,
        reason=verdict.reason if verdict else None,
        **more,
    )


def measures_of(scores: pa.Table) -> list[str]:
    """The measures of a table `scores`, in the order of `MEASURES`; best-of measures have a table of their own."""
    names = dict.fromkeys(scores["measure"].to_pylist())
    ordered = [name for name in MEASURES if name in names]
    return [*ordered, *(name for name in names if name not in MEASURES and name not in map(best_of, COUNTS))]


def cells(scores: pa.Table, column: str = "value") -> Iterator[tuple[tuple[str, str, str, str], Interval]]:
    """Model, prompt, measure and split → mean over products, or what a measure says of a set, in a fixed order."""
    for split in SPLITS:
        for measure in measures_of(scores):
            for condition in (*CONDITIONS, *OTHERS, PHOTOS):
                key = (*condition, measure, split)
                values = scores_of(scores, condition, measure=measure, split=split, column=column)
                if values:
                    is_share = measure in MEASURES and MEASURES[measure].kind == "share"
                    yield key, (share if is_share else bootstrap)(list(values.values()))
                elif column == "value" and (of_set := set_score(scores, condition, measure=measure, split=split)):
                    yield key, of_set


def gains(scores: pa.Table) -> Iterator[tuple[Condition, Condition, str, str, Interval]]:
    """What, over what, by which measure, on which split, and how much: only where both were measured."""
    for split in SPLITS:
        for measure in measures_of(scores):
            for after, before in COMPARISONS:
                pairs = paired_scores(scores, after, before, measure=measure, split=split)
                if len(pairs[0]):
                    yield after, before, measure, split, paired(*pairs)
