import numpy as np
import pytest

from fashion_pipeline.core.evaluation.statistics import (
    Condition,
    Interval,
    bootstrap,
    paired,
    paired_scores,
    product_means,
    share,
    standardised_gain,
)
from fashion_pipeline.core.tables import rows_to_table


def test_interval_covers_the_truth_as_often_as_it_claims():
    rng = np.random.default_rng(0)
    intervals = [bootstrap(rng.gamma(4.0, 0.25, 40), seed=i, resamples=1000) for i in range(400)]
    covered = np.mean([i.low <= 1.0 <= i.high for i in intervals])
    assert 0.91 <= covered <= 0.98


def test_a_share_of_none_or_all_is_not_certain():
    none, all_ = share(np.zeros(48)), share(np.ones(48))
    assert (none.mean, none.low) == (0, 0) and none.high == pytest.approx(0.074, abs=0.001)
    assert (all_.mean, all_.high) == (1, 1) and all_.low == pytest.approx(0.926, abs=0.001)
    halves = np.tile([0.0, 0.5, 1.0], 16)
    assert share(halves) == bootstrap(halves)


def test_interval_counts_products_not_seeds():
    rng = np.random.default_rng(1)
    products = np.repeat([f"p{i}" for i in range(40)], 8)
    values = np.repeat(rng.normal(0, 1, 40), 8) + rng.normal(0, 0.1, 320)
    keys, means = product_means(products, values)
    nested = bootstrap(means)
    naive = bootstrap(values)
    assert len(keys) == nested.n == 40
    assert nested.high - nested.low > 2 * (naive.high - naive.low)


def test_same_seed_gives_the_same_interval():
    values = np.random.default_rng(2).normal(size=50)
    assert bootstrap(values) == bootstrap(values)


def test_one_product_has_a_mean_and_no_interval():
    assert bootstrap([0.5]) == Interval(0.5, None, None, 1)
    assert not bootstrap([0.5]).above(0)


def test_equal_values_have_an_interval_of_width_zero():
    interval = bootstrap([0.25] * 5)
    assert interval.low == interval.high == interval.mean == pytest.approx(0.25)


@pytest.mark.parametrize("values", [[0, 1], [0, 0, 1], [0] * 9 + [1e9], [0] * 99 + [1]])
def test_lopsided_values_still_have_a_finite_interval(values):
    interval = bootstrap(values)
    assert interval.low <= interval.mean <= interval.high


@pytest.mark.parametrize("values", [[], [0.1, np.nan], [np.inf]])
def test_a_mean_of_nothing_or_of_nan_is_refused(values):
    with pytest.raises(ValueError, match="finite"):
        bootstrap(values)


def test_a_paired_gain_is_found_under_large_differences_between_products():
    rng = np.random.default_rng(3)
    before = rng.normal(0, 1, 60)
    after = before + 0.1 + rng.normal(0, 0.05, 60)
    assert paired(after, before).above(0)
    assert paired(before, after).below(0)
    with pytest.raises(ValueError, match="same products"):
        paired(after, before[:-1])


def test_standardised_gain_does_not_depend_on_the_encoders_scale():
    rng = np.random.default_rng(4)
    before = rng.normal(0.5, 0.05, 60)
    after = before + rng.normal(0.05, 0.02, 60)
    gain = standardised_gain(after, before)
    assert gain.mean == pytest.approx(standardised_gain(after * 7, before * 7).mean)
    assert gain.mean == pytest.approx(1.0, abs=0.3)
    assert standardised_gain(after, np.full(60, 0.5)) is None


def test_only_products_scored_under_both_conditions_are_compared():
    def row(model, product, cosine):
        keys = {"model": model, "prompt": "plain", "measure": "judge", "split": "dev"}
        return keys | {"scope": "product", "product_group": product, "value": cosine}

    scores = rows_to_table(
        "scores",
        [
            row("original", "a", 0.1),
            row("original", "b", 0.2),
            row("specialised", "b", 0.5),
            row("specialised", "c", 0),
        ],
    )
    after, before = paired_scores(
        scores, Condition("specialised", "plain"), Condition("original", "plain"), measure="judge", split="dev"
    )
    assert after == pytest.approx([0.5])
    assert before == pytest.approx([0.2])
