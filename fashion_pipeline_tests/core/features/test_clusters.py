"""Groups of similar photos."""

import numpy as np

from fashion_pipeline.core.features.clusters import LEAST_PHOTOS, clusters


def around(direction: list[float], n: int) -> np.ndarray:
    rows = np.array(direction) + np.random.default_rng(n).normal(0, 0.05, (n, len(direction)))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_a_style_that_is_two_things_falls_into_these() -> None:
    rows = np.concatenate([around([1, 0, 0], 30), around([0, 1, 0], 12)])
    found = clusters(rows)
    assert found[:2] == [list(range(30)), list(range(30, 42))]
    assert clusters(rows) == found


def test_groups_that_are_too_small_are_left_out() -> None:
    rows = np.concatenate([around([1, 0, 0], 40), around([0, 1, 0], LEAST_PHOTOS - 1)])
    assert all(len(group) >= LEAST_PHOTOS for group in clusters(rows))
    assert set(map(tuple, clusters(rows))).isdisjoint({tuple(range(40, 40 + LEAST_PHOTOS - 1))})
    assert clusters(around([1, 0], 2 * LEAST_PHOTOS - 1)) == []
