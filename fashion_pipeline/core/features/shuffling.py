"""The shuffle control: does an image encoder see the garments in these photos, or only their colours and textures?

A photo cut into pieces and put together at random keeps its colours, textures and light, and loses the garment. Where
an encoder finds such a heap as like the photos as a whole photo is, its similarities speak of colours and backgrounds
alone, and no score by it says anything about garments. The same two sets, whole and shuffled, tell whether a generated
image shows something: it should lie closer to the whole photos than to their pieces.

That networks may go by texture rather than shape: Geirhos et al. 2019 (ICLR, arXiv:1811.12231). Shuffled patches as the
test for it: Naseer et al. 2021 (NeurIPS, arXiv:2105.10497), who cut 2 x 2 to 14 x 14.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Embeddings = NDArray[np.float32]

PIECES = 4
"""Pieces along each side. With 2 a shoe may survive in one of them; with 8 pieces are smaller than buttons."""

SEEN = 0.75
"""An encoder is believed unless the share of photos that are closer to the others than their pieces lies below this.

Chance is one half, and an encoder that sees garments comes to nearly all: this lies in the middle."""

RECOGNISED = 0.5
"""Share of samples that must look more like the photos than like their pieces, for a model to be called better."""

MOST_PHOTOS = 256
"""Photos of a style that are shuffled, one a product: enough for a share, at a cost that does not grow."""

NEAREST = 5
"""Photos that a sample is compared with: a style may be several things, and a sample can be only one of them."""


@dataclass(frozen=True)
class Sight:
    """What the shuffle control says of an encoder and the photos of a style."""

    share: float
    """Of the photos that are closer to the others than their pieces are, 0 to 1."""
    n: int
    """Photos, one a product."""

    @classmethod
    def of(cls, photos: Embeddings, pieces: Embeddings) -> "Sight":
        """From (n, d) photos of n products and the same shuffled; a single one has no others, and is believed."""
        return cls(float(garments_seen(photos, pieces).mean()) if len(photos) > 1 else 1.0, len(photos))

    @property
    def believed(self) -> bool:
        """Whether what the encoder says of these photos may be believed: not where the 95 % interval is below SEEN."""
        return bool(self.upper >= SEEN)

    @property
    def upper(self) -> float:
        """Upper end of the share's 95 % interval (Wilson 1927, JASA 22)."""
        z, p, n = 1.96, self.share, max(self.n, 1)
        spread: float = z * np.sqrt((p * (1 - p) + z**2 / (4 * n)) / n)
        return (p + z**2 / (2 * n) + spread) / (1 + z**2 / n)


def shuffled(image: Image.Image, key: str) -> Image.Image:
    """An RGB image of any size cut into PIECES x PIECES and put together in an order that depends on `key` alone.

    No piece stays where it was. Up to PIECES - 1 pixels at the right and lower edge are cut off; an image smaller than
    that comes back as it is.
    """
    width, height = (side - side % PIECES for side in image.size)
    if not width or not height:
        return image
    pixels = np.asarray(image.convert("RGB"))[:height, :width]
    pieces = pixels.reshape(PIECES, height // PIECES, PIECES, width // PIECES, 3).swapaxes(1, 2)
    mixed = pieces.reshape(PIECES**2, height // PIECES, width // PIECES, 3)[_order(key)].reshape(pieces.shape)
    return Image.fromarray(np.ascontiguousarray(mixed.swapaxes(1, 2).reshape(height, width, 3)))


def _order(key: str) -> NDArray[np.intp]:
    """A permutation without a fixed point: one random cycle through all pieces (Sattolo 1986)."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    order = np.arange(PIECES**2)
    for last in range(len(order) - 1, 0, -1):
        other = int(rng.integers(last))
        order[[last, other]] = order[[other, last]]
    return order


def garments_seen(photos: Embeddings, pieces: Embeddings) -> NDArray[np.bool_]:
    """(n, d) photos of n products and (n, d) the same shuffled, unit rows → (n,) whether the photo is the closer one.

    Both are compared with the other n - 1 photos, by mean cosine. Raises ValueError for fewer than 2 photos, or rows
    that do not belong together.
    """
    if photos.shape != pieces.shape or len(photos) < 2:
        raise ValueError(f"needs two or more photos and each of them shuffled, got {photos.shape} and {pieces.shape}")
    total = photos.sum(axis=0)
    others = total[None] - photos
    return np.asarray(np.einsum("nd,nd->n", photos, others) > np.einsum("nd,nd->n", pieces, others))


def recognised(samples: Embeddings, photos: Embeddings, pieces: Embeddings) -> NDArray[np.bool_]:
    """(m, d) samples, (n, d) photos and (n, d) the same shuffled → (m,) whether a sample is closer to whole photos.

    By the mean cosine to the NEAREST of either. Raises ValueError without photos.
    """
    if photos.shape != pieces.shape or not len(photos):
        raise ValueError(f"needs photos and each of them shuffled, got {photos.shape} and {pieces.shape}")
    return np.asarray(_to_nearest(samples, photos) > _to_nearest(samples, pieces))


def shuffled_id(id_: str) -> str:
    """What the embedding of a photo's shuffled pieces is kept under."""
    return f"{id_}:shuffled-{PIECES}"


def _to_nearest(samples: Embeddings, others: Embeddings) -> NDArray[np.float32]:
    cosines = samples @ others.T
    nearest = min(NEAREST, len(others))
    return np.asarray(np.partition(cosines, -nearest, axis=1)[:, -nearest:].mean(axis=1))
