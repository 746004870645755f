"""Similarity of embeddings, raw and anchored between two real reference points."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]
Cosine = TypeVar("Cosine", float, NDArray[np.float64])

ROUNDING = 1e-4
"""Error that float32 may make of the cosine of two unit rows."""


@dataclass(frozen=True)
class Anchors:
    """Mean cosines of real pairs in one encoder's space: what 0 and 1 of anchored similarity stand for."""

    across: float
    """Photos of this style against photos of other styles: anchored 0."""
    within: float
    """Photos of different products of this style: anchored 1."""

    def place(self, cosine: Cosine) -> Cosine:
        """A cosine, or an array of them, on the anchored scale. Below 0 and above 1 are possible."""
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
    """(n, d) unit rows → (n,) mean cosine of each photo to those of other product groups; 0 without any.

    The mean cosine to a set is the cosine to its mean, so that no photo is compared with every other.
    """
    sums, members, counts = _group_sums(embeddings, groups)
    others = len(embeddings) - counts[members]
    cosines = np.einsum("nd,nd->n", embeddings, sums.sum(axis=0) - sums[members])
    return np.asarray(np.where(others > 0, cosines / np.maximum(others, 1), 0), np.float32)


def within_similarity(style: Embeddings, groups: Sequence[str]) -> float | None:
    """Mean cosine of (n, d) photos of different product groups of a style; None with a single product."""
    sums, _, counts = _group_sums(style, groups)
    pairs = int(counts.sum()) ** 2 - int((counts**2).sum())
    total = sums.sum(axis=0)
    return float((total @ total - np.einsum("gd,gd->", sums, sums)) / pairs) if pairs else None


def _group_sums(
    embeddings: Embeddings, groups: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """(g, d) sum of each group's rows, (n,) each row's group, (g,) rows of each group."""
    _, members, counts = np.unique(np.array(groups, object).astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(members, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    rows = embeddings[order]
    sums = np.add.reduceat(rows, starts, axis=0, dtype=np.float64) if len(rows) else np.zeros((0, embeddings.shape[1]))
    return sums, members.ravel(), counts


def anchors(style: Embeddings, groups: Sequence[str], others: NDArray[np.floating] | None) -> Anchors | None:
    """The anchors of a style from its (n, d) photos, their product groups, and the (d,) mean photo of other styles.

    None without another style, with a single product, or where the style is no closer to itself than to others.
    """
    within = within_similarity(style, groups)
    if others is None or within is None:
        return None
    across = float(style.mean(axis=0, dtype=np.float64) @ others)
    return Anchors(across, within) if within - across > 1e-3 else None
