"""What is decided from scores: the four cells of the design, the version in use, and the rule that a user chose."""

import numpy as np
import pyarrow as pa
import pytest

from fashion_pipeline.core.evaluation.decisions import ORIGINAL, WORDS, decide_publishing
from fashion_pipeline.core.evaluation.report import EvaluationReport
from fashion_pipeline.core.evaluation.verdicts import MIN_PRODUCTS, decide
from fashion_pipeline.core.tables import rows_to_table
from fashion_pipeline.core.texts import languages, speaking

Means = dict[tuple[str, str], float]

HELPS: Means = {("original", "plain"): 0.4, ("original", "best"): 0.5, ("specialised", "plain"): 0.55}
HELPS |= {("specialised", "best"): 0.6}


def scores(means: Means, n: int = 60) -> pa.Table:
    """Both roles' similarities around the mean of each cell, by product."""
    rng = np.random.default_rng(0)
    spread = rng.normal(0, 0.05, n)
    rows = [
        {"model": model, "prompt": prompt, "measure": role, "split": "dev", "product_group": f"p{place}"}
        | {"scope": "product", "value": mean + spread[place] + noise}
        for (model, prompt), mean in means.items()
        for role in ("encoder", "judge")
        for place, noise in enumerate(rng.normal(0, 0.02, n))
    ]
    return rows_to_table("scores", rows)


def decided(means: Means, n: int = 60, champion: bool = False, publish_when=WORDS):
    table = scores(means, n)
    return decide_publishing(table, {}, publish_when, decide(table), champion)


def test_training_that_adds_to_the_best_words_is_published_and_each_gain_is_told() -> None:
    found = decided(HELPS)
    assert (found.name, found.publish) == ("better", True)
    assert found.headline.startswith("Training helped beyond the best words: +0.10")
    assert found.words and found.training and found.beyond_words and found.against_champion is None
    assert (found.words.judge.mean, found.training.judge.mean) == (
        pytest.approx(0.1, abs=0.01),
        pytest.approx(0.15, abs=0.01),
    )
    assert found.beyond_words.encoder.low < found.beyond_words.encoder.mean < found.beyond_words.encoder.high


def test_words_that_do_as_well_keep_a_better_model_back_unless_the_original_is_to_be_beaten() -> None:
    words_do = HELPS | {("original", "best"): 0.6}
    kept = decided(words_do)
    assert (kept.name, kept.publish) == ("words suffice", False)
    assert kept.headline.startswith("Not published: training adds too little to the best words, ")
    published = decided(words_do, publish_when=ORIGINAL)
    assert published.publish and "the best words alone reach +0.20" in published.headline


@pytest.mark.parametrize(
    ("mean", "headline"),
    [
        (0.65, "Not published: the version in use is closer (−0.10"),
        (0.545, "Not published: no closer than the version in use (+0.00"),
        (0.45, "Training helped beyond the best words"),
    ],
)
def test_the_version_in_use_must_be_beaten(mean: float, headline: str) -> None:
    found = decided(HELPS | {("champion", "plain"): mean}, champion=True)
    assert found.headline.startswith(headline) and found.publish == (mean < 0.5)


def test_too_few_products_are_told_apart_from_no_difference() -> None:
    few = decided(HELPS, n=MIN_PRODUCTS - 16)
    assert few.headline == "Not published: 24 products are too few to decide; 40 are needed."
    nothing = decided(dict.fromkeys(HELPS, 0.4))
    assert (nothing.name, nothing.headline) == (
        "no evidence",
        "Not published: no difference to the original was found.",
    )
    assert few.name != nothing.name


def test_a_decision_comes_back_from_json_and_speaks_every_language() -> None:
    found = decided(HELPS)
    report = EvaluationReport(style="coat", verdict="better", reason="", decision=found)
    assert EvaluationReport.read(report.as_json()) == report
    said = set()
    for name in languages():
        with speaking(name):
            said.add(decided(HELPS).headline)
    assert len(said) == len(languages())


@pytest.mark.parametrize(
    ("verdict", "against", "name", "publish"),
    [
        ("better", None, "better", True),
        ("better", {"verdict": "better", "reason": "Closer."}, "better", True),
        ("better", {"verdict": "worse", "reason": "Further."}, "version in use", False),
        ("memorised", None, "memorised", False),
        ("no evidence", None, "no evidence", False),
    ],
)
def test_a_report_of_an_earlier_version_says_what_it_decided(verdict, against, name, publish) -> None:
    report = {"style": "coat", "verdict": verdict, "reason": "Measured.", "scores": [], "against_champion": against}
    found = EvaluationReport.read(report).told()
    assert found is not None and (found.name, found.publish) == (name, publish)
    assert EvaluationReport.read({"style": "coat", "verdict": None, "reason": None}).told() is None
