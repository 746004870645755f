"""Which photos belong together, and which split they fall into: the one rule behind every held-out figure.

Near-duplicates form one product group, and a group lies in exactly one split. Membership never chains: a photo joins a
group only if it is close to the photo that founded the group.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fashion_pipeline.core.catalog.fingerprints import Fingerprints, near_duplicates

Split = Literal["search", "dev", "test"]

SHARES: dict[Split, float] = {"search": 0.6, "dev": 0.3, "test": 0.1}
"""Expected share of product groups in each split."""


@dataclass(frozen=True)
class Assignment:
    """The product group and split of n photos, in the order they were given."""

    groups: list[str]
    """Key of the photo that founded the group."""
    splits: list[Split]
    bridges: list[tuple[str, str] | None]
    """For a photo that is close to groups of two splits, the keys of two such groups: it must not be used."""


def split_of(key: str) -> Split:
    """The split of a product group, from a hash of its founder's key alone, so that other photos never move it."""
    position = int(hashlib.sha256(f"split:{key}".encode()).hexdigest()[:8], 16) / 2**32
    if position < SHARES["search"]:
        return "search"
    return "dev" if position < SHARES["search"] + SHARES["dev"] else "test"


def assign_splits(
    keys: Sequence[str], prints: Fingerprints, known: Mapping[int, Sequence[tuple[float, str]]] | None = None
) -> Assignment:
    """Put each photo into the group of its closest founder, or let it found a group.

    `known` has, for the position of a photo, the founders assigned earlier that it is a near-duplicate of: (distance,
    key), in the order that decides where two are as close. Photos are taken in the given order.
    """
    founders: dict[int, str] = {}
    neighbours = _neighbours(prints)
    assignment = Assignment([], [], [])
    for position, key in enumerate(keys):
        close = [(distance, founders[other]) for other, distance in neighbours.get(position, ()) if other in founders]
        close = sorted([*(known or {}).get(position, ()), *close], key=lambda found: found[0])
        groups = [group for _, group in close]
        elsewhere = next((group for group in groups if split_of(group) != split_of(groups[0])), None)
        if not groups:
            founders[position] = key
        group = groups[0] if groups else key
        assignment.groups.append(group)
        assignment.splits.append(split_of(group))
        assignment.bridges.append((group, elsewhere) if elsewhere else None)
    return assignment


def held_out(keys: Sequence[str], prints: Fingerprints) -> NDArray[np.bool_]:
    """(n,) True for every photo that some order of arrival could put into `test`, and for its near-duplicates.

    A model trained on the rest has seen no photo of any `test` split, nor a copy of one.
    """
    is_test = np.array([split_of(key) == "test" for key in keys], bool)
    result = is_test.copy()
    for position, others in _neighbours(prints).items():
        result[position] |= any(is_test[other] for other, _ in others)
    return result


def _neighbours(prints: Fingerprints) -> dict[int, list[tuple[int, float]]]:
    result: dict[int, list[tuple[int, float]]] = {}
    for i, j, distance in near_duplicates(prints):
        result.setdefault(i, []).append((j, distance))
        result.setdefault(j, []).append((i, distance))
    return result
