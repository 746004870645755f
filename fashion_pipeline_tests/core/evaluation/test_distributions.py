import numpy as np
import pytest

from fashion_pipeline.core.evaluation.distributions import consistency, covered, distance, diversity
from fashion_pipeline.core.evaluation.statistics import jackknife, products_needed


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def cloud(n: int, seed: int, centre: float = 1.0, spread: float = 0.5, d: int = 32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return unit(np.eye(d)[0] * centre + rng.normal(0, spread, (n, d)))


def test_the_distance_is_that_of_a_second_implementation():
    import torch
    from torchmetrics.image.kid import poly_mmd

    one, other = cloud(50, 0), cloud(50, 1, spread=0.3)
    rows = [torch.from_numpy(each).double() for each in (one, other)]
    assert distance(one, other).mean == pytest.approx(float(poly_mmd(*rows, degree=3, gamma=1.0, coef=1.0)), abs=1e-9)


def test_sets_from_one_distribution_are_at_distance_zero_and_others_are_not():
    same = [distance(cloud(60, 2 * k), cloud(60, 2 * k + 1)) for k in range(60)]
    assert abs(np.mean([each.mean for each in same])) < 0.1 * np.std([each.mean for each in same]) * 3
    assert np.mean([each.low <= 0 <= each.high for each in same]) >= 0.9
    assert distance(cloud(60, 0), cloud(60, 1, centre=-1.0)).above(0.1)


def test_a_distance_needs_as_many_samples_as_photos():
    with pytest.raises(ValueError, match="a sample for each photo"):
        distance(cloud(5, 0), cloud(6, 0))


def test_diversity_counts_different_images():
    assert diversity(np.eye(8, dtype=np.float32)).mean == pytest.approx(8)
    assert diversity(np.tile(unit(np.ones((1, 8))), (8, 1))).mean == pytest.approx(1)
    assert diversity(np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)).mean == pytest.approx(4)


def test_the_interval_of_diversity_holds_a_fresh_set_and_excludes_a_narrow_one():
    found = diversity(cloud(60, 0))
    assert found.low < diversity(cloud(60, 1)).mean < found.high
    assert diversity(cloud(60, 2, spread=0.1)).below(0.5 * found.mean)


def test_consistency_is_the_mean_cosine_to_all_others():
    rows = cloud(6, 3)
    cosines = rows @ rows.T
    expected = [(cosines[i].sum() - 1) / 5 for i in range(6)]
    assert consistency(rows) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="no others"):
        consistency(rows[:1])


def test_photos_that_no_sample_comes_near_are_not_covered():
    left, right = cloud(20, 4, spread=0.05), cloud(20, 5, centre=-1.0, spread=0.05)
    photos = np.concatenate([left, right])
    assert covered(cloud(40, 6, spread=0.05), photos).tolist() == [True] * 20 + [False] * 20
    assert covered(photos, photos).all()


def test_a_jackknifed_mean_has_students_interval():
    from scipy.stats import t

    values = np.random.default_rng(0).normal(size=30)
    found = jackknife(lambda places: float(values[places].mean()), 30)
    reach = t.ppf(0.975, 29) * values.std(ddof=1) / np.sqrt(30)
    assert (found.mean, found.high - found.mean) == (pytest.approx(values.mean()), pytest.approx(reach))


def test_so_many_products_find_the_gain_as_often_as_was_promised():
    rng = np.random.default_rng(0)
    before = rng.normal(0, 1, 400)
    after = before + rng.normal(0, 0.8, 400)
    needed = products_needed(after, before, 0.2, power=0.8)
    found = []
    for _ in range(400):
        differences = rng.normal(0.2 * before.std(ddof=1), (after - before).std(ddof=1), needed)
        found.append(differences.mean() - 1.96 * differences.std(ddof=1) / np.sqrt(needed) > 0)
    assert 0.74 <= np.mean(found) <= 0.86
    assert products_needed([1.0, 2.0], [1.0, 1.0], 0.2) is None
