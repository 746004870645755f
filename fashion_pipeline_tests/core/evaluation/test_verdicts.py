import numpy as np
import pytest

from fashion_pipeline.core.evaluation.verdicts import MIN_PRODUCTS, decide
from fashion_pipeline.core.tables import rows_to_table


def scores(encoder: float, judge: float, n: int = 60, split: str = "dev", noise: float = 0.3):
    """Gains in standard deviations of the original's scores over products."""
    rng = np.random.default_rng(0)
    rows = []
    for role, gain, mean, sd in (("encoder", encoder, 0.6, 0.04), ("judge", judge, 0.3, 0.10)):
        original = rng.normal(mean, sd, n)
        error = rng.normal(0, noise, n)
        specialised = original + sd * (gain + error - error.mean())
        for model, values in (("original", original), ("specialised", specialised)):
            rows += [
                {"model": model, "prompt": "plain", "measure": role, "split": split, "product_group": f"p{i}"}
                | {"scope": "product", "value": value}
                for i, value in enumerate(values)
            ]
    return rows_to_table("scores", rows)


@pytest.mark.parametrize(
    ("encoder", "judge", "name", "reason"),
    [
        (0.5, 0.5, "better", "closer to photos it never saw"),
        (0.5, 0.3, "better", "60 products"),
        (-0.5, -0.5, "worse", "further from the photos"),
        (-0.5, 0.0, "worse", "further"),
        (0.0, -0.5, "worse", "further"),
        (1.0, 0.0, "hacked", "not confirmed by the judge"),
        (1.0, -0.5, "hacked", "not confirmed by the judge"),
        (2.0, 0.3, "hacked", "not confirmed by the judge"),
        (0.0, 0.0, "no evidence", "Neither encoder nor judge"),
        (0.0, 0.5, "no evidence", "the encoder's interval includes zero"),
        (-0.5, 0.5, "no evidence", "contradict"),
        (0.12, 0.03, "no evidence", "the judge's interval includes zero"),
    ],
)
def test_verdict_follows_from_the_gains(encoder, judge, name, reason):
    verdict = decide(scores(encoder, judge))
    assert verdict.name == name, verdict.reason
    assert reason in verdict.reason


def test_the_original_against_itself_is_no_evidence():
    verdict = decide(scores(0.0, 0.0, noise=0.0))
    assert verdict.name == "no evidence"
    assert "+0.000" in verdict.reason or "-0.000" in verdict.reason


def test_too_few_products_are_no_evidence_and_the_reason_says_how_many_are_missing():
    verdict = decide(scores(2.0, 2.0, n=MIN_PRODUCTS - 3))
    assert verdict.name == "no evidence"
    assert "Only 37" in verdict.reason
    assert "3 are missing" in verdict.reason
    assert decide(scores(2.0, 2.0, n=MIN_PRODUCTS)).name == "better"


def test_the_test_split_never_decides():
    assert "Only 0 dev products" in decide(scores(2.0, 2.0, split="test")).reason


def test_no_scores_at_all_are_no_evidence():
    assert decide(rows_to_table("scores", [])).name == "no evidence"
