import numpy as np
import pytest
from PIL import Image, ImageFilter

from fashion_pipeline.core.catalog.fingerprints import Fingerprints
from fashion_pipeline.core.evaluation.copies import limit, nearest_by_colour, nearest_by_cosine
from fashion_pipeline.core.evaluation.defects import flat, repeated


def rows(n: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(n, 24))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_the_nearest_training_photo_is_found_by_either_distance():
    trained = rows(10, 0)
    images = trained[[3, 7]] + np.float32(0.001)
    assert nearest_by_cosine(images, trained).places.tolist() == [3, 7]
    found = nearest_by_colour(images, trained)
    assert found.places.tolist() == [3, 7] and found.distances == pytest.approx([0.001, 0.001], rel=1e-3)
    assert nearest_by_cosine(trained, trained).distances == pytest.approx(np.zeros(10), abs=1e-6)


def test_one_in_a_hundred_photos_that_were_never_trained_on_lies_beyond_the_limit():
    found = nearest_by_cosine(rows(400, 1), rows(100, 2))
    assert np.mean(found.distances < limit(found)) == pytest.approx(0.01, abs=0.005)
    few = nearest_by_cosine(rows(20, 3), rows(100, 2))
    assert not (few.distances < limit(few)).any()


def test_without_photos_that_were_never_trained_on_there_is_no_limit():
    with pytest.raises(ValueError, match="never trained on"):
        limit(nearest_by_cosine(rows(0, 0), rows(3, 0)))


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)


def test_images_of_one_colour_are_flat_and_copies_of_each_other_are_repeated():
    images = [picture(0), picture(0).filter(ImageFilter.GaussianBlur(0.5)), picture(1), Image.new("RGB", (64, 64))]
    prints = Fingerprints.of(images)
    assert flat(prints).tolist() == [False, False, False, True]
    assert repeated(prints).tolist() == [True, True, False, False]
