"""Similarity of embeddings, raw and anchored between two real reference points."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class Anchors:
    """Mean cosines of real pairs in one encoder's space: what 0 and 1 of anchored similarity stand for."""

    across: float
    """Photos of this style against photos of other styles: anchored 0."""
    within: float
    """Photos of different products of this style: anchored 1."""

    def place(self, cosine: float) -> float:
        """A cosine on the anchored scale. Below 0 and above 1 are possible."""
        return (cosine - self.across) / (self.within - self.across)


def paired_cosines(a: Embeddings, b: Embeddings) -> NDArray[np.float32]:
    """(n, d) and (n, d) unit rows → (n,) cosines in [-1, 1], row by row."""
    return np.asarray(np.clip(np.einsum("nd,nd->n", a, b), -1.0, 1.0), np.float32)


def mean_similarity(a: Embeddings, b: Embeddings) -> NDArray[np.float32]:
    """(n, d) and (m, d) unit rows → (n,) mean cosine of each row of `a` to all of `b`."""
    return np.asarray(a @ b.mean(axis=0), np.float32)


def typicality(embeddings: Embeddings, groups: Sequence[str]) -> NDArray[np.float32]:
    """(n, d) unit rows → (n,) mean cosine of each photo to those of other product groups; 0 without any."""
    different = np.not_equal.outer(np.array(groups), np.array(groups))
    cosines = (embeddings @ embeddings.T) * different
    return np.asarray(cosines.sum(axis=1) / np.maximum(different.sum(axis=1), 1), np.float32)


def anchors(style: Embeddings, groups: Sequence[str], others: Embeddings) -> Anchors | None:
    """The anchors of a style from its (n, d) photos, their product groups, and (m, d) photos of other styles.

    None without another style, with a single product, or where the style is no closer to itself than to others.
    """
    different = np.not_equal.outer(np.array(groups), np.array(groups))
    if len(others) == 0 or not different.any():
        return None
    within = float((style @ style.T)[different].mean())
    across = float(mean_similarity(style, others).mean())
    return Anchors(across, within) if within - across > 1e-3 else None
