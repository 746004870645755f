"""Whether photos that arrived are of another kind than those trained on."""

import numpy as np
import pytest

from fashion_pipeline.core.features.drift import MIN_PRODUCTS, MOST_PRODUCTS, drift


def photos(n: int, seed: int, shift: float = 0.0, d: int = 32) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    rows[:, 0] += shift
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def names(n: int, prefix: str) -> list[str]:
    return [f"{prefix}{k}" for k in range(n)]


def test_photos_of_another_kind_are_told_from_those_known() -> None:
    found = drift(photos(20, 1, shift=3.0), names(20, "a"), photos(100, 2), names(100, "b"))
    assert found is not None and found.p < 0.001 and found.discrepancy > 0
    assert (found.arrived, found.known) == (20, 100)


def test_photos_of_the_same_kind_are_mistaken_for_others_as_rarely_as_the_level_says() -> None:
    alarms = [
        (found := drift(photos(12, 2 * k), names(12, "a"), photos(40, 2 * k + 1), names(40, "b"))) and found.p < 0.1
        for k in range(100)
    ]
    assert 3 <= sum(map(bool, alarms)) <= 20  # 10 expected; the bounds leave out less than 1 %


def test_many_photos_of_one_product_are_one_observation() -> None:
    one = np.repeat(photos(1, 5, shift=3.0), 50, axis=0)
    assert drift(one, ["same"] * 50, photos(100, 2), names(100, "b")) is None
    few = MIN_PRODUCTS
    repeated = np.repeat(photos(few, 7), 30, axis=0)
    found = drift(repeated, [f"a{k // 30}" for k in range(30 * few)], photos(100, 2), names(100, "b"))
    assert found is not None and found.arrived == few and found.p > 0.05


@pytest.mark.parametrize("sizes", [(0, 100), (7, 100), (100, 7)])
def test_too_few_products_are_left_untested(sizes: tuple[int, int]) -> None:
    n, m = sizes
    assert drift(photos(n, 1), names(n, "a"), photos(m, 2), names(m, "b")) is None


def test_a_large_catalog_is_sampled_and_the_same_each_time() -> None:
    n = MOST_PRODUCTS + 100
    asked = (photos(n, 1), names(n, "a"), photos(n, 2), names(n, "b"))
    first, second = drift(*asked), drift(*asked)
    assert first == second and first is not None and first.arrived == MOST_PRODUCTS
