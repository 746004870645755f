"""Which photos belong together, and which split they fall into: the one rule behind every held-out figure.

Near-duplicates form one product group, and a group lies in exactly one split. A perceptual hash proposes a
near-duplicate, a comparison of colour thumbnails confirms it, and membership never chains: a photo joins a group only
if it is close to the photo that founded the group.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["search", "dev", "test"]

SHARES: dict[Split, float] = {"search": 0.6, "dev": 0.3, "test": 0.1}
"""Expected share of product groups in each split."""

MAX_HASH_DISTANCE = 8
"""Perceptual hashes that differ in more of their 64 bits are never near-duplicates."""

MAX_COLOUR_DISTANCE = 0.10
"""Largest thumbnail difference of a near-duplicate, relative to the contrast of the two photos. On 8,362 product photos
re-encoded and retouched copies lie below 0.08, colourways of one product and other products above 0.09."""

_THUMBNAIL = 16


@dataclass(frozen=True)
class Fingerprints:
    """What near-duplicate detection needs of n photos."""

    hashes: NDArray[np.uint64]
    """(n,) 64-bit perceptual hashes (DCT, Zauner 2010)."""
    thumbnails: NDArray[np.uint8]
    """(n, 16, 16, 3) colour thumbnails."""

    def __len__(self) -> int:
        return len(self.hashes)

    @classmethod
    def of(cls, images: Sequence[Image.Image]) -> "Fingerprints":
        """Fingerprints of RGB images."""
        return cls.stack([fingerprint(image) for image in images])

    @classmethod
    def stack(cls, parts: Sequence[tuple[int, NDArray[np.uint8]]]) -> "Fingerprints":
        """Join single fingerprints, as `fingerprint` returns them."""
        thumbnails = np.array([thumbnail for _, thumbnail in parts], np.uint8)
        return cls(
            np.array([value for value, _ in parts], np.uint64), thumbnails.reshape(-1, _THUMBNAIL, _THUMBNAIL, 3)
        )

    def then(self, other: "Fingerprints") -> "Fingerprints":
        """These photos followed by the others."""
        return Fingerprints(
            np.concatenate([self.hashes, other.hashes]), np.concatenate([self.thumbnails, other.thumbnails])
        )


@dataclass(frozen=True)
class Assignment:
    """The product group and split of n photos, in the order they were given."""

    groups: list[str]
    """Key of the photo that founded the group."""
    splits: list[Split]
    bridges: list[tuple[str, str] | None]
    """For a photo that is close to groups of two splits, the keys of two such groups: it must not be used."""


def fingerprint(image: Image.Image) -> tuple[int, NDArray[np.uint8]]:
    """Perceptual hash and (16, 16, 3) thumbnail of an RGB image."""
    return int(str(imagehash.phash(image)), 16), colours(image)


def colours(image: Image.Image) -> NDArray[np.uint8]:
    """The (16, 16, 3) thumbnail of an RGB image of any proportions."""
    return np.asarray(image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), np.uint8)


def split_of(key: str) -> Split:
    """The split of a product group, from a hash of its founder's key alone, so that other photos never move it."""
    position = int(hashlib.sha256(f"split:{key}".encode()).hexdigest()[:8], 16) / 2**32
    if position < SHARES["search"]:
        return "search"
    return "dev" if position < SHARES["search"] + SHARES["dev"] else "test"


def assign_splits(
    keys: Sequence[str],
    prints: Fingerprints,
    founded: Sequence[tuple[str, str]] = (),
    known: Fingerprints | None = None,
) -> Assignment:
    """Put each photo into the group of its closest founder, or let it found a group.

    `founded` and `known` are the (key, group) pairs and fingerprints of photos assigned earlier: they keep their group,
    and only the founders among them (key == group) attract others. Photos are taken in the given order.
    """
    if known is not None:
        founders = [position for position, (key, group) in enumerate(founded) if key == group]
        kept = Fingerprints(known.hashes[founders], known.thumbnails[founders])
        everything = kept.then(prints)
        founder_keys: dict[int, str] = {index: founded[position][0] for index, position in enumerate(founders)}
    else:
        everything, founder_keys = prints, {}
    offset = len(founder_keys)
    neighbours = _neighbours(everything)
    assignment = Assignment([], [], [])
    for position, key in enumerate(keys, start=offset):
        close = sorted((distance, other) for other, distance in neighbours.get(position, ()) if other in founder_keys)
        groups = [founder_keys[other] for _, other in close]
        elsewhere = next((group for group in groups if split_of(group) != split_of(groups[0])), None)
        if not groups:
            founder_keys[position] = key
        group = groups[0] if groups else key
        assignment.groups.append(group)
        assignment.splits.append(split_of(group))
        assignment.bridges.append((group, elsewhere) if elsewhere else None)
    return assignment


def held_out(keys: Sequence[str], prints: Fingerprints) -> NDArray[np.bool_]:
    """(n,) True for every photo that some order of arrival could put into `test`, and for its near-duplicates.

    A model trained on the rest has seen no photo of any `test` split, nor a copy of one.
    """
    own = np.array([split_of(key) == "test" for key in keys], bool)
    result = own.copy()
    for position, others in _neighbours(prints).items():
        result[position] |= any(own[other] for other, _ in others)
    return result


def near_duplicates(prints: Fingerprints) -> Iterator[tuple[int, int, float]]:
    """Pairs of positions (i < j) of near-duplicates, with their relative colour distance."""
    if not len(prints):
        return
    contrast = np.maximum(prints.thumbnails.reshape(len(prints), -1).std(1), 1.0)
    for start in range(0, len(prints), 512):
        block = prints.hashes[start : start + 512, None]
        rows, columns = np.nonzero(np.bitwise_count(block ^ prints.hashes[None, :]) <= MAX_HASH_DISTANCE)
        for i, j in zip(rows + start, columns, strict=True):
            if i < j:
                difference = prints.thumbnails[i].astype(np.float32) - prints.thumbnails[j]
                distance = float(np.sqrt((difference**2).mean()) / np.sqrt(contrast[i] * contrast[j]))
                if distance <= MAX_COLOUR_DISTANCE:
                    yield int(i), int(j), distance


def _neighbours(prints: Fingerprints) -> dict[int, list[tuple[int, float]]]:
    result: dict[int, list[tuple[int, float]]] = {}
    for i, j, distance in near_duplicates(prints):
        result.setdefault(i, []).append((j, distance))
        result.setdefault(j, []).append((i, distance))
    return result
