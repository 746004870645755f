"""Defects of single samples that need no encoder: nothing to be seen, or the same picture again with another seed."""

import numpy as np
from numpy.typing import NDArray

from fashion_pipeline.core.catalog.fingerprints import BLANK_RANGE, Fingerprints, near_duplicates


def flat(prints: Fingerprints) -> NDArray[np.bool_]:
    """n fingerprints → (n,) whether the image is of one colour all over; values that are no numbers come out black."""
    cells = prints.thumbnails.reshape(len(prints), -1, 3).astype(np.int16)
    return np.asarray((np.ptp(cells, axis=1) <= BLANK_RANGE).all(axis=1))


def repeated(prints: Fingerprints) -> NDArray[np.bool_]:
    """n fingerprints of samples with different seeds → (n,) whether another one of them is a near-duplicate."""
    is_repeated = np.zeros(len(prints), bool)
    for one, other, _ in near_duplicates(prints):
        is_repeated[[one, other]] = True
    return is_repeated
