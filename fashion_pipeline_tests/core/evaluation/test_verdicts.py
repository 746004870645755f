import numpy as np
import pytest

from fashion_pipeline.core.evaluation.verdicts import BEST_PROMPT, MIN_PRODUCTS, decide
from fashion_pipeline.core.features.shuffling import Sight
from fashion_pipeline.core.tables import rows_to_table


def scores(
    encoder: float,
    judge: float,
    n: int = 60,
    split: str = "dev",
    noise: float = 0.3,
    recognised: tuple[float, float] | None = None,
    garment: tuple[float, float] | None = None,
):
    """Gains in standard deviations of the original's scores over products; shares of original and specialised."""
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
    for measure, shares in (("recognised", recognised), ("garment", garment)):
        for model, share in zip(("original", "specialised"), shares or (), strict=False):
            rows += [
                {"model": model, "prompt": "plain", "measure": measure, "split": split, "product_group": f"p{i}"}
                | {"scope": "product", "value": float(i < round(share * n))}
                for i in range(n)
            ]
    return rows_to_table("scores", rows)


SEES, BLIND = Sight(0.98, 120), Sight(0.5, 120)


@pytest.mark.parametrize(
    ("encoder", "judge", "name", "reason"),
    [
        (0.5, 0.5, "better", "closer to photos it never saw"),
        (0.5, 0.3, "better", "60 products"),
        (0.15, 0.15, "no evidence", "too little to matter: the smaller of both gains is 0.15"),
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
    assert "+0.000" in verdict.reason or "−0.000" in verdict.reason


def test_too_few_products_decide_nothing_and_the_reason_says_how_many_are_missing():
    verdict = decide(scores(2.0, 2.0, n=MIN_PRODUCTS - 3))
    assert verdict.name == "undecided"
    assert "Only 37" in verdict.reason
    assert "3 are missing" in verdict.reason
    assert decide(scores(2.0, 2.0, n=MIN_PRODUCTS)).name == "better"


def test_the_test_split_never_decides():
    assert "Only 0 dev products" in decide(scores(2.0, 2.0, split="test")).reason


def test_no_scores_at_all_decide_nothing():
    assert decide(rows_to_table("scores", [])).name == "undecided"


@pytest.mark.parametrize(
    ("shares", "name", "reason"),
    [
        ({"recognised": (0.9, 0.8), "garment": (0.5, 0.6)}, "better", "closer"),
        ({"recognised": (0.9, 0.2)}, "broken", "20% of the samples of the specialised model"),
        ({"recognised": (0.1, 0.2)}, "no evidence", "only 20% of its samples look more like the photos"),
        ({"recognised": (0.9, 0.7)}, "better", "closer"),
        ({"garment": (0.8, 0.4)}, "worse", "shows the garment of its photo less often than the original model"),
        ({"garment": (0.1, 0.1)}, "better", "closer"),
    ],
)
def test_a_score_counts_only_where_the_pictures_show_the_garment(shares, name, reason):
    verdict = decide(scores(2.0, 2.0, **shares))
    assert verdict.name == name, verdict.reason
    assert reason in verdict.reason


@pytest.mark.parametrize(("encoder", "judge"), [(BLIND, SEES), (SEES, BLIND), (BLIND, BLIND)])
@pytest.mark.parametrize("gain", [2.0, -2.0])
def test_nothing_is_said_where_encoder_or_judge_does_not_see_the_garments(encoder, judge, gain):
    verdict = decide(scores(gain, gain), sight={"encoder": encoder, "judge": judge})
    assert verdict.name == "no evidence"
    blind = [role for role, sight in (("encoder", encoder), ("judge", judge)) if not sight.believed]
    assert f"by {' and '.join(blind)}, only {' and '.join(['50%'] * len(blind))} of the photos" in verdict.reason


def test_encoders_that_see_the_garments_are_believed():
    assert decide(scores(2.0, 2.0), sight={"encoder": SEES, "judge": SEES}).name == "better"


def test_pictures_that_fell_apart_are_called_so_even_where_the_encoder_is_blind():
    assert decide(scores(2.0, 2.0, recognised=(0.7, 0.2)), sight={"encoder": BLIND}).name == "broken"


def test_a_prompt_is_judged_by_the_same_rules_and_named_as_one():
    table = scores(0.5, 0.5).to_pylist()
    best = {"specialised": "best", "original": "plain"}
    renamed = [row | {"model": "original", "prompt": best[row["model"]]} for row in table]
    verdict = decide(rows_to_table("scores", renamed), after=BEST_PROMPT)
    assert verdict.name == "better" and "The best prompt comes closer" in verdict.reason


def with_shares(after: float, before: float, measure: str, n: int = 60) -> list[dict[str, object]]:
    return [
        {"model": model, "prompt": "plain", "measure": measure, "split": "dev", "product_group": f"p{i}"}
        | {"scope": "product", "value": float(i < round(share * n))}
        for model, share in (("specialised", after), ("original", before))
        for i in range(n)
    ]


def with_variety(specialised: float, original: float, photos: float, reach: float = 1.0) -> list[dict[str, object]]:
    cells = {("specialised", "plain"): specialised, ("original", "plain"): original, ("photos", "photos"): photos}
    return [
        {"model": model, "prompt": prompt, "measure": "diversity", "split": "dev", "scope": "set"}
        | {"product_group": None, "value": value, "low": value - reach, "high": value + reach}
        for (model, prompt), value in cells.items()
    ]


@pytest.mark.parametrize(
    ("more", "name", "reason"),
    [
        (with_shares(0.3, 0.0, "flat"), "broken", "30% of the samples of the specialised model are of one colour"),
        (with_shares(0.3, 0.3, "flat"), "better", "closer"),
        (with_shares(0.1, 0.0, "flat"), "better", "closer"),
        (with_shares(0.5, 0.0, "repeated"), "collapsed", "near-duplicates of one with another seed"),
        (with_shares(0.2, 0.0, "repeated"), "better", "closer"),
        (with_shares(0.2, 0.0, "copied"), "memorised", "of those of the original model it is 0%"),
        (with_shares(0.2, 0.2, "copied"), "better", "closer"),
        (with_shares(0.03, 0.0, "copied"), "better", "closer"),
        (with_variety(4, 12, 10), "better", "closer"),
        (with_variety(3, 12, 10), "collapsed", "amount to 3.0 different images"),
        (with_variety(3, 4, 10), "better", "closer"),
        (with_variety(3, 12, 4), "better", "closer"),
        (with_shares(0.5, 0.0, "copied") + with_shares(0.5, 0.0, "repeated"), "collapsed", "near-duplicates"),
        (with_shares(0.5, 0.0, "repeated") + with_shares(0.5, 0.0, "flat"), "broken", "one colour"),
    ],
)
def test_a_better_score_counts_for_nothing_where_the_samples_are_flat_alike_or_copied(more, name, reason):
    verdict = decide(rows_to_table("scores", [*scores(2.0, 2.0).to_pylist(), *more]))
    assert verdict.name == name, verdict.reason
    assert reason in verdict.reason


def test_copies_come_before_a_gain_that_only_the_encoder_sees():
    both = [*scores(2.0, 0.0).to_pylist(), *with_shares(0.5, 0.0, "copied")]
    assert decide(rows_to_table("scores", both)).name == "memorised"


def test_no_evidence_says_how_many_products_would_tell():
    unsure = decide(scores(0.0, 0.0, noise=2.0))
    assert unsure.name == "no evidence" and "80% of such evaluations would find a gain of 0.2" in unsure.reason
    needed = int(unsure.reason.split("With ")[1].split(" products")[0])
    assert needed == pytest.approx(((1.96 + 0.84) * 2.0 / 0.2) ** 2, rel=0.5)
    assert "so there hardly is one" in decide(scores(0.0, 0.0, noise=0.1)).reason
