"""What a photo looks like in 776 bytes, and which photos look nearly the same.

A near-duplicate is proposed by a perceptual hash and confirmed by a comparison of colour thumbnails. Not every photo is
compared with every other: photos whose thumbnails are close are close in any few directions too, so a k-d tree over
fourteen of them (Bentley 1975, as in scipy) names the few pairs that are looked at, and misses none.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from scipy.spatial import KDTree

MAX_HASH_DISTANCE = 8
"""Perceptual hashes that differ in more of their 64 bits are never near-duplicates."""

MAX_COLOUR_DISTANCE = 0.10
"""Largest thumbnail difference of a near-duplicate, relative to the contrast of the two photos. On 8,362 product photos
re-encoded and retouched copies lie below 0.08, colourways of one product and other products above 0.09."""

BLANK_RANGE = 3
"""Largest difference of two values of a channel in an image that shows nothing; scanning and JPEG leave as much."""

_THUMBNAIL = 16
_VALUES = _THUMBNAIL * _THUMBNAIL * 3
_WAVES = 18
"""Lowest frequencies of the brightness that the tree looks at, beside two mean colours."""
_LEAF = 40
"""Photos of a leaf of the tree. On 70,000 photos these two numbers took the least time."""
_AT_A_TIME = 512


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


def fingerprint(image: Image.Image) -> tuple[int, NDArray[np.uint8]]:
    """Perceptual hash and (16, 16, 3) thumbnail of an RGB image."""
    import imagehash

    return int(str(imagehash.phash(image)), 16), colours(image)


def colours(image: Image.Image) -> NDArray[np.uint8]:
    """The (16, 16, 3) thumbnail of an RGB image of any proportions."""
    return np.asarray(image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), np.uint8)


class Gallery:
    """Photos among which near-duplicates are looked for, at some 300 bytes of memory a photo.

    Thumbnails are not kept: a part that holds photos which come into question is read again for them.
    """

    def __init__(self, parts: Iterable[Callable[[], Fingerprints]] = ()) -> None:
        """`parts` are read now, and again where they are needed; positions count through all of them."""
        self._parts: list[Callable[[], Fingerprints]] = []
        self._hashes: list[NDArray[np.uint64]] = []
        self._where: list[NDArray[np.float32]] = []
        for part in parts:
            self.add(part)

    def add(self, part: Callable[[], Fingerprints]) -> None:
        """Hang some more photos, such as those of a style."""
        prints = part()
        self._parts.append(part)
        self._hashes.append(prints.hashes)
        self._where.append(_coordinates(prints.thumbnails))
        self.__dict__.pop("_index", None)

    def near(self, photos: Fingerprints) -> Iterator[tuple[int, int, float]]:
        """(position among `photos`, position in the gallery, relative colour distance) of near-duplicates, sorted."""
        if not len(photos) or not self._parts:
            return
        ours, theirs = self._candidates(photos)
        contrast = _contrast(photos.thumbnails)
        kept: list[NDArray[np.float64]] = []
        starts = np.cumsum([0, *map(len, self._hashes)])
        for part, start, end in zip(self._parts, starts, starts[1:], strict=False):
            chosen = np.flatnonzero((theirs >= start) & (theirs < end))
            if len(chosen):
                thumbnails = part().thumbnails
                for at in np.array_split(chosen, -(-len(chosen) // _AT_A_TIME)):  # bounded memory
                    there = thumbnails[theirs[at] - start]
                    distance = _distance(photos.thumbnails[ours[at]], there)
                    distance /= np.sqrt(contrast[ours[at]] * _contrast(there))
                    near = distance <= MAX_COLOUR_DISTANCE
                    kept.append(np.stack([ours[at][near], theirs[at][near], distance[near]], axis=1))
        yield from sorted((int(i), int(j), float(d)) for i, j, d in np.concatenate(kept)) if kept else ()

    def _candidates(self, photos: Fingerprints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions here and in the gallery of pairs with close hashes that the tree does not rule out."""
        tree, hashes = self._index
        where, reach = _coordinates(photos.thumbnails), _reach(photos.thumbnails)
        ours, theirs = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start in range(0, len(photos), _AT_A_TIME):
            rows = slice(start, start + _AT_A_TIME)
            neighbours = tree.query_ball_point(where[rows], reach[rows])
            one = np.repeat(np.arange(start, start + len(neighbours)), [len(each) for each in neighbours])
            other = np.concatenate([np.asarray(each, np.int64) for each in neighbours])
            close = np.bitwise_count(photos.hashes[one] ^ hashes[other]) <= MAX_HASH_DISTANCE
            ours.append(one[close])
            theirs.append(other[close])
        return np.concatenate(ours), np.concatenate(theirs)

    @cached_property
    def _index(self) -> "tuple[KDTree, NDArray[np.uint64]]":
        from scipy.spatial import KDTree

        return KDTree(np.concatenate(self._where), leafsize=_LEAF), np.concatenate(self._hashes)


def near_duplicates(prints: Fingerprints) -> Iterator[tuple[int, int, float]]:
    """Pairs of positions (i < j) of near-duplicates, with their relative colour distance, sorted."""
    return (pair for pair in Gallery([lambda: prints]).near(prints) if pair[0] < pair[1])


def _contrast(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(np.maximum(thumbnails.reshape(len(thumbnails), -1).std(1), 1.0))


def _distance(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Root mean square difference of (n, 16, 16, 3) thumbnails, row by row."""
    return np.asarray(np.sqrt(((a.astype(np.float32) - b) ** 2).mean((1, 2, 3), dtype=np.float64)))


def _reach(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far at most the near-duplicates of each lie from it, in the tree's coordinates.

    Contrast, a standard deviation, differs by no more than the thumbnails do: with m the largest relative distance,
    the other's contrast is at most r² times as large, where r² = 1 + m r.
    """
    m = MAX_COLOUR_DISTANCE
    ratio = (m + np.sqrt(m * m + 4)) / 2
    return np.asarray(m * ratio * np.sqrt(_VALUES) * _contrast(thumbnails) + 0.1)  # for float32


def _coordinates(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 16, 16, 3) → (n, 20): along orthonormal directions, so that no distance grows."""
    return np.asarray(thumbnails.reshape(-1, _VALUES).astype(np.float32) @ _directions(), np.float32)


@cache
def _directions() -> NDArray[np.float32]:
    """(768, 20) orthonormal columns: low frequencies of the brightness, and the mean of two colour differences."""
    from scipy.fft import dct

    waves = dct(np.eye(_THUMBNAIL), norm="ortho", axis=0)
    grey, red_green, blue = ([1, 1, 1] / np.sqrt(3), [1, -1, 0] / np.sqrt(2), [1, 1, -2] / np.sqrt(6))
    lowest = sorted(product(range(_THUMBNAIL), repeat=2), key=lambda wave: (wave[0] ** 2 + wave[1] ** 2, wave))
    patterns = [(v, h, grey) for v, h in lowest[:_WAVES]] + [(0, 0, colour) for colour in (red_green, blue)]
    columns = [np.einsum("v,h,c->vhc", waves[v], waves[h], colour).ravel() for v, h, colour in patterns]
    return np.stack(columns, axis=1).astype(np.float32)
