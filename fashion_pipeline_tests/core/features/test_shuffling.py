"""The shuffle control: what shuffling keeps and destroys, and what an encoder that sees, or does not, says of it."""

import numpy as np
import pytest
from PIL import Image

from fashion_pipeline.core.features.shuffling import PIECES, SEEN, Sight, garments_seen, recognised, shuffled


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def unit(rows: object) -> np.ndarray:
    matrix = np.array(rows, np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def around(direction: list[float], n: int, seed: int) -> np.ndarray:
    return unit(np.array(direction) + np.random.default_rng(seed).normal(0, 0.1, (n, len(direction))))


def cut(image: Image.Image) -> list[bytes]:
    width, height = image.size[0] // PIECES, image.size[1] // PIECES
    boxes = [(x * width, y * height) for y in range(PIECES) for x in range(PIECES)]
    return [image.crop((x, y, x + width, y + height)).tobytes() for x, y in boxes]


@pytest.mark.parametrize("size", [(64, 64), (40, 120), (66, 61)])
def test_every_piece_is_kept_and_none_stays_where_it_was(size: tuple[int, int]) -> None:
    before, after = picture(*size), shuffled(picture(*size), "a")
    assert after.size == tuple(side - side % PIECES for side in size)
    pieces = cut(before.crop((0, 0, *after.size)))
    assert sorted(cut(after)) == sorted(pieces)
    assert all(piece != was for piece, was in zip(cut(after), pieces, strict=True))


def test_the_order_depends_on_the_key_alone() -> None:
    assert shuffled(picture(64, 64), "a") == shuffled(picture(64, 64), "a")
    assert shuffled(picture(64, 64), "a") != shuffled(picture(64, 64), "b")


def test_an_image_smaller_than_its_pieces_is_left_as_it_is() -> None:
    assert shuffled(picture(3, 64), "a") == picture(3, 64)


def test_an_encoder_that_sees_garments_tells_photos_from_their_pieces() -> None:
    photos, pieces = around([1, 0, 0], 60, 0), around([0, 1, 0], 60, 1)
    assert garments_seen(photos, pieces).all()
    assert Sight.of(photos, pieces).believed


def test_an_encoder_that_sees_colours_alone_does_not() -> None:
    photos, pieces = around([1, 0, 0], 120, 0), around([1, 0, 0], 120, 1)
    sight = Sight.of(photos, pieces)
    assert 0.35 < sight.share < 0.65
    assert not sight.believed


def test_few_photos_are_no_proof_of_blindness() -> None:
    assert Sight(0.5, 4).believed
    assert not Sight(0.5, 40).believed
    assert Sight.of(around([1, 0], 1, 0), around([1, 0], 1, 1)).believed


def test_the_interval_of_a_share_is_that_of_wilson() -> None:
    assert Sight(0.71, 160).upper == pytest.approx(0.7747, abs=1e-3)  # statsmodels: proportion_confint(113.6, 160)
    assert Sight(1.0, 10).upper == pytest.approx(1.0)
    assert Sight(SEEN, 10_000).upper == pytest.approx(SEEN, abs=0.01)


def test_samples_are_recognised_by_the_photos_nearest_to_them() -> None:
    """A style of two kinds: a sample of the rarer one is recognised, although most photos are of the other."""
    photos = np.concatenate([around([1, 0, 0, 0], 50, 0), around([0, 1, 0, 0], 6, 1)])
    pieces = np.concatenate([around([0, 0, 1, 0], 50, 2), around([0, 0.5, 1, 0], 6, 3)])
    samples = unit([[0, 1, 0.1, 0], [1, 0, 0.1, 0], [0, 0.1, 1, 0]])
    assert recognised(samples, photos, pieces).tolist() == [True, True, False]


@pytest.mark.parametrize("n", [0, 1])
def test_what_cannot_be_compared_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match="photos"):
        garments_seen(around([1, 0], n, 0), around([1, 0], n, 1))
    with pytest.raises(ValueError, match="photos"):
        recognised(around([1, 0], 3, 0), around([1, 0], n, 0), around([1, 0], n + 1, 1))
