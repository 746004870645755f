"""Gains by attribute, and at equal cost."""

import numpy as np
import pytest

from fashion_pipeline.core.evaluation.attribute_gains import attribute_gains
from fashion_pipeline.core.evaluation.best_of import COUNTS, best_of, equal_cost
from fashion_pipeline.core.evaluation.verdicts import AFTER, BEFORE
from fashion_pipeline.core.tables import rows_to_table


def table(values: dict[tuple[str, str], np.ndarray]):
    """(model, measure) → one value a product."""
    return rows_to_table(
        "scores",
        [
            {"model": model, "prompt": "plain", "measure": measure, "scope": "product", "split": "dev"}
            | {"product_group": f"p{i}", "value": float(value)}
            for (model, measure), column in values.items()
            for i, value in enumerate(column)
        ],
    )


def test_each_value_gains_what_its_own_products_gain():
    red = np.arange(30) < 12
    zero = np.zeros(30)
    scores = table(
        {
            ("original", "encoder"): zero,
            ("original", "judge"): zero,
            ("specialised", "encoder"): np.where(red, 0.3, 0.1),
            ("specialised", "judge"): np.where(red, 0.1, 0.2),
        }
    )
    shown = {f"p{i}": {"colour": "red" if red[i] else "blue", "audience": "men"} for i in range(30)}
    found = attribute_gains(scores, shown | {"p0": {"colour": "green"}}, AFTER, BEFORE, "dev")
    assert [(gain.facet, gain.value, gain.encoder.n) for gain in found] == [
        ("colour", "blue", 18),
        ("colour", "red", 11),
    ]
    assert [gain.judge.mean for gain in found] == pytest.approx([0.2, 0.1])
    assert found[1].encoder.mean == pytest.approx(0.3)


def test_drawing_more_is_compared_with_training_at_the_same_number_and_with_a_single_image():
    rng = np.random.default_rng(0)
    base = rng.normal(0.5, 0.01, 20)
    scores = table(
        {("original", best_of(count)): base + 0.05 * count for count in COUNTS}
        | {("specialised", best_of(count)): base + 0.1 + 0.05 * count for count in COUNTS}
    )
    found = equal_cost(scores)
    assert [row["images"] for row in found] == list(COUNTS)
    assert [row["gain"]["mean"] for row in found] == pytest.approx([0.1, 0.1, 0.1])
    assert [row["one_against"]["mean"] for row in found] == pytest.approx([0.1, 0.05, -0.05])
    assert equal_cost(table({})) == []
