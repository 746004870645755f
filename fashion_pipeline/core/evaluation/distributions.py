"""What a set of samples is like as a whole: how far from the photos, how diverse, how consistent, what it leaves out.

All from unit rows of the judge, and at equal numbers: the value of these measures depends on how many images there are.
"""

import numpy as np
from numpy.typing import NDArray

from fashion_pipeline.core.evaluation.statistics import Floats, Interval, Places, jackknife

Embeddings = NDArray[np.float32]

LEAST_PRODUCTS = 8
"""Fewer products say nothing about a set."""

NEIGHBOURS = 5
"""How far around a photo a sample covers it: as far as its fifth neighbour among the photos (Naeem et al. 2020)."""


def distance(samples: Embeddings, photos: Embeddings) -> Interval:
    """(n, d) samples and (n, d) photos of the same products → their squared maximum mean discrepancy; 0 is alike.

    The unbiased estimator with the cubic kernel of KID (Bińkowski et al. 2018, arXiv:1801.01401), whose features are
    here unit rows scaled by the root of d; so it may come out below 0. Raises ValueError where the numbers differ.
    """
    from sklearn.metrics.pairwise import polynomial_kernel

    if samples.shape != photos.shape:
        raise ValueError(f"needs a sample for each photo, got {samples.shape} and {photos.shape}")
    rows = np.concatenate([samples, photos]).astype(np.float64)
    kernel = polynomial_kernel(rows, degree=3, gamma=1.0, coef0=1.0)
    n = len(samples)

    def discrepancy(places: Places) -> float:
        drawn_pairs, real = kernel[np.ix_(places, places)], kernel[np.ix_(places + n, places + n)]
        return (
            _without_diagonal(drawn_pairs)
            + _without_diagonal(real)
            - 2 * float(kernel[np.ix_(places, places + n)].mean())
        )

    return jackknife(discrepancy, n)


def diversity(rows: Embeddings) -> Interval:
    """(n, d) unit rows → how many different images they amount to, 1 to n: the Vendi score (arXiv:2210.02410).

    The exponential of the entropy of the eigenvalues of their cosines.
    """
    from vendi_score import vendi

    left, sizes, _ = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    short = left * sizes  # the same cosines in at most n dimensions: many times faster where d is larger
    return jackknife(lambda places: float(vendi.score_dual(short[places])), len(short))


def consistency(rows: Embeddings) -> Floats:
    """(n, d) unit rows, n > 1 → (n,) mean cosine of each to the others, -1 to 1. Raises ValueError for fewer."""
    if len(rows) < 2:
        raise ValueError("one image has no others to be like")
    exact = rows.astype(np.float64)
    squared_norms = np.einsum("nd,nd->n", exact, exact)
    return np.asarray((exact @ exact.sum(axis=0) - squared_norms) / (len(exact) - 1))


def covered(samples: Embeddings, photos: Embeddings) -> NDArray[np.bool_]:
    """(m, d) samples and (n, d) photos, n > 1 → (n,) whether a sample lies within the neighbourhood of each photo.

    It reaches to the photo's fifth neighbour among the photos, or to the last where there are fewer (coverage, Naeem et
    al. 2020, arXiv:2002.09797). Raises ValueError for fewer than two photos, or no samples.
    """
    from sklearn.neighbors import NearestNeighbors

    if len(photos) < 2 or not len(samples):
        raise ValueError(f"needs two photos and a sample, got {len(photos)} and {len(samples)}")
    count = min(NEIGHBOURS, len(photos) - 1)
    # to itself a photo is at distance 0, so that its neighbours follow
    reach = NearestNeighbors(n_neighbors=count + 1).fit(photos).kneighbors(photos)[0][:, -1]
    nearest = NearestNeighbors(n_neighbors=1).fit(samples).kneighbors(photos)[0][:, 0]
    return np.asarray(nearest <= reach)


def _without_diagonal(kernel: Floats) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))
