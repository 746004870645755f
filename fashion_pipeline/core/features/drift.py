"""Whether photos that arrived look like those that were trained on: a two-sample test of their embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_PRODUCTS = 8
"""With fewer products on either side the test could hardly ever find anything, and is left out."""

MOST_PRODUCTS = 500
"""Products of each side that are looked at, drawn at random: time and memory grow with their square."""

PERMUTATIONS = 1999


@dataclass(frozen=True)
class Drift:
    """What the test found."""

    p: float
    """Probability of a discrepancy this large among products of one distribution, in [1 / 2000, 1]."""
    discrepancy: float
    """Squared maximum mean discrepancy, 0 for equal distributions, at most 2."""
    arrived: int
    """Products that arrived."""
    known: int
    """Products that they were compared with."""


def drift(
    arrived: NDArray[np.float32],
    arrived_groups: Sequence[str],
    known: NDArray[np.float32],
    known_groups: Sequence[str],
    seed: int = 0,
) -> Drift | None:
    """(n, d) and (m, d) embeddings with their product groups → the test; None with fewer than 8 products on a side.

    The kernel two-sample test of Gretton et al. (JMLR 13, 2012): maximum mean discrepancy with a Gaussian kernel whose
    width is the median distance, against random permutations. Photos of one product are averaged first, since they are
    no independent observations.
    """
    random = np.random.default_rng(seed)
    sides = [_sampled(_by_product(arrived, arrived_groups), random), _sampled(_by_product(known, known_groups), random)]
    n, m = map(len, sides)
    if min(n, m) < MIN_PRODUCTS:
        return None

    from scipy.stats import permutation_test
    from sklearn.metrics.pairwise import euclidean_distances

    squares = euclidean_distances(np.concatenate(sides), squared=True)
    width = float(np.median(squares[np.triu_indices(n + m, 1)]))
    kernel = np.exp(-squares / max(width, 1e-12))

    def discrepancy(a: NDArray[np.int64], b: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        weights = np.full((*a.shape[:-1], n + m), -1.0 / m)
        np.put_along_axis(weights, a, 1.0 / n, axis=-1)
        return np.asarray(((weights @ kernel) * weights).sum(axis=-1))

    test = permutation_test(
        (np.arange(n), np.arange(n, n + m)),
        discrepancy,
        n_resamples=PERMUTATIONS,
        vectorized=True,
        alternative="greater",
        batch=200,
        rng=random,
    )
    return Drift(float(test.pvalue), float(test.statistic), n, m)


def _by_product(rows: NDArray[np.float32], groups: Sequence[str]) -> NDArray[np.float64]:
    """(n, d) rows → (products, d) means."""
    names, places = np.unique(np.array(groups, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, places, rows)
    return np.asarray(sums / np.bincount(places, minlength=len(names))[:, None])


def _sampled(rows: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    if len(rows) <= MOST_PRODUCTS:
        return rows
    return rows[random.choice(len(rows), MOST_PRODUCTS, replace=False)]
