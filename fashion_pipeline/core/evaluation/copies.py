"""Memorisation: is a sample closer to a training photo than a photo that was never trained on ever is?

Real photos of other products are how close one may come to a training photo without having seen it. Both they and the
training photos pass through the generator's autoencoder first, since whatever a generator draws has its blur. Two
distances are looked at, because either has a blind spot: an image encoder takes a copy that is a little blurred for
something else, and small colour pictures confuse garments of one cut.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]

BY_CHANCE = 0.01
"""Share of photos never trained on that lie beyond the limit of a distance."""


@dataclass(frozen=True)
class Nearest:
    """For each image the training photo that it is nearest to, by one distance."""

    places: NDArray[np.intp]
    """Of that photo among the training photos."""
    distances: NDArray[np.float64]
    """0 for the same."""


def nearest_by_cosine(images: Rows, trained: Rows) -> Nearest:
    """(n, d) and (m, d) unit rows, m > 0 → by 1 - cosine, 0 to 2."""
    return _nearest(1 - images.astype(np.float64) @ trained.astype(np.float64).T)


def nearest_by_colour(images: Rows, trained: Rows) -> Nearest:
    """(n, d) and (m, d) colours from 0 to 1, m > 0 → by the root of the mean squared difference, 0 to 1."""
    from sklearn.metrics.pairwise import euclidean_distances

    exact = [rows.astype(np.float64) for rows in (images, trained)]
    return _nearest(euclidean_distances(*exact) / np.sqrt(images.shape[1]))


def limit(held_out: Nearest) -> float:
    """The distance below which an image counts as a copy: 99 of 100 photos that were never trained on lie above it.

    With fewer than 100 photos none lies below. Raises ValueError without photos.
    """
    if not len(held_out.distances):
        raise ValueError("photos that were never trained on are needed to tell a copy from a coincidence")
    return float(np.quantile(held_out.distances, BY_CHANCE, method="lower"))


def _nearest(distances: NDArray[np.float64]) -> Nearest:
    places = np.argmin(distances, axis=1)
    return Nearest(places, np.maximum(distances[np.arange(len(distances)), places], 0.0))
