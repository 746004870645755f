"""Equal cost: drawing several images and keeping the best one, with the original and with the specialised model."""

from dataclasses import asdict
from typing import Any

import pyarrow as pa

from fashion_pipeline.core.evaluation.statistics import bootstrap, paired, paired_scores, scores_of
from fashion_pipeline.core.evaluation.verdicts import AFTER, BEFORE, SPLIT

COUNTS = (1, 2, 4)
"""Images that are drawn for one that is kept."""


def best_of(count: int) -> str:
    """The measure: judge similarity of the sample that the encoder prefers among so many."""
    return f"best_of_{count}"


def equal_cost(scores: pa.Table) -> list[dict[str, Any]]:
    """JSON-ready rows, one a count: the best of so many images of either model, and what the specialised one gains.

    `gain` compares the two at the same number of images. `one_against` sets a single image of the specialised model
    against the best of the original's: below zero, drawing more is worth as much as training.
    """
    rows = []
    for count in COUNTS:
        after, before = paired_scores(scores, AFTER, BEFORE, measure=best_of(count), split=SPLIT)
        if not len(after):
            continue
        single = scores_of(scores, AFTER, measure=best_of(1), split=SPLIT)
        original = scores_of(scores, BEFORE, measure=best_of(count), split=SPLIT)
        shared = sorted(single.keys() & original.keys())
        compared = {
            "original": bootstrap(before),
            "specialised": bootstrap(after),
            "gain": paired(after, before),
            "one_against": paired([single[p] for p in shared], [original[p] for p in shared]),
        }
        rows.append({"images": count} | {name: asdict(value) for name, value in compared.items()})
    return rows
