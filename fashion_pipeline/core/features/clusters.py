"""Groups of similar photos, for styles that are several things."""

import numpy as np
from numpy.typing import NDArray

LEAST_PHOTOS = 8
"""Photos of a group; smaller ones are chance."""

COUNTS = (2, 3)
"""Numbers of groups that are tried."""


def clusters(embeddings: NDArray[np.float32]) -> list[list[int]]:
    """(n, d) unit rows → the places of the photos of each group, of two groups and of three; larger groups first.

    k-means++ (Arthur and Vassilvitskii 2007, SODA) with a fixed seed. A division with a group of fewer than
    LEAST_PHOTOS photos is left out, so that small and uniform styles have none.
    """
    from scipy.cluster.vq import kmeans2

    members_of: list[list[int]] = []
    for count in COUNTS:
        if len(embeddings) < count * LEAST_PHOTOS:
            continue
        _, labels = kmeans2(embeddings.astype(np.float64), count, minit="++", rng=np.random.default_rng(0))
        groups = [np.flatnonzero(labels == label).tolist() for label in range(count)]
        if min(map(len, groups)) >= LEAST_PHOTOS:
            members_of += sorted(groups, key=len, reverse=True)
    return members_of
