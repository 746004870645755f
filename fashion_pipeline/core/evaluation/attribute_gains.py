"""Which garments gained, and which did not: the gain of the verdict, by what the photos show."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fashion_pipeline.core.evaluation.statistics import Condition, Interval, paired, scores_of
from fashion_pipeline.core.rows import Role

LEAST_PRODUCTS = 8
"""Products that must show a value for its gain to be told."""


@dataclass(frozen=True)
class AttributeGain:
    """What products with one value of a facet gained."""

    facet: str
    value: str
    encoder: Interval
    judge: Interval


def attribute_gains(
    scores: pa.Table, shown: Mapping[str, Mapping[str, str]], after: Condition, before: Condition, split: str
) -> list[AttributeGain]:
    """The gain of `after` over `before` by attribute, largest by the judge first; one facet after the other.

    `shown` is product → facet → value. A facet with a single value is left out: its gain is that of the style. These
    intervals are not corrected for their number; they say where to look, and no verdict rests on them.
    """
    cosines = {
        role: [scores_of(scores, condition, measure=role, split=split) for condition in (after, before)]
        for role in Role
    }
    compared = sorted(set.intersection(*(set(each) for pair in cosines.values() for each in pair)))
    values: dict[tuple[str, str], list[str]] = {}
    for product in compared:
        for facet, value in shown.get(product, {}).items():
            values.setdefault((facet, value), []).append(product)
    large_enough = {key: products for key, products in values.items() if len(products) >= LEAST_PRODUCTS}
    facets = [facet for facet, _ in large_enough]
    rows = [
        AttributeGain(
            facet,
            value,
            *(paired(*(np.array([each[p] for p in products]) for each in cosines[role])) for role in Role),
        )
        for (facet, value), products in large_enough.items()
        if facets.count(facet) > 1
    ]
    return sorted(rows, key=lambda gain: (facets.index(gain.facet), -gain.judge.mean))
