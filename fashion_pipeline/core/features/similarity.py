"""Similarity of embeddings, raw and anchored between two real reference points."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]

ROUNDING = 1e-4
"""Error that float32 may make of the cosine of two unit rows."""


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
    """(n, d) and (n, d) unit rows → (n,) cosines, row by row.

    What rounding leads beyond [-1, 1] is brought back; what rows that are not of length 1 lead beyond stays to be seen.
    """
    cosines = np.einsum("nd,nd->n", a, b)
    rounded = np.clip(cosines, -1.0, 1.0)
    return np.asarray(np.where(np.abs(cosines - rounded) < ROUNDING, rounded, cosines), np.float32)


def mean_similarity(a: Embeddings, b: Embeddings) -> NDArray[np.float32]:
    """(n, d) and (m, d) unit rows → (n,) mean cosine of each row of `a` to all of `b`."""
    return np.asarray(a @ b.mean(axis=0), np.float32)


def typicality(embeddings: Embeddings, groups: Sequence[str]) -> NDArray[np.float32]:
    """(n, d) unit rows → (n,) mean cosine of each photo to those of other product groups; 0 without any."""
    different = np.not_equal.outer(np.array(groups), np.array(groups))
    cosines = (embeddings @ embeddings.T) * different
    return np.asarray(cosines.sum(axis=1) / np.maximum(different.sum(axis=1), 1), np.float32)


def within_similarity(style: Embeddings, groups: Sequence[str]) -> float | None:
    """Mean cosine of (n, d) photos of different product groups of a style; None with a single product."""
    different = np.not_equal.outer(np.array(groups), np.array(groups))
    return float((style @ style.T)[different].mean()) if different.any() else None


def anchors(style: Embeddings, groups: Sequence[str], others: Embeddings) -> Anchors | None:
    """The anchors of a style from its (n, d) photos, their product groups, and (m, d) photos of other styles.

    None without another style, with a single product, or where the style is no closer to itself than to others.
    """
    within = within_similarity(style, groups)
    if len(others) == 0 or within is None:
        return None
    across = float(mean_similarity(style, others).mean())
    return Anchors(across, within) if within - across > 1e-3 else None
