"""Near-duplicates are found through an index, which must miss none that a comparison of all pairs finds."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fashion_pipeline.core.catalog.fingerprints import (
    MAX_COLOUR_DISTANCE,
    MAX_HASH_DISTANCE,
    Fingerprints,
    Gallery,
    near_duplicates,
)
from fashion_pipeline_tests.conftest import SAMPLES
from fashion_pipeline_tests.intake.planting import brighter, photo


@pytest.fixture(scope="module")
def prints() -> Fingerprints:
    """The sample photos, which are much alike, and copies of each: smaller, paler, of another contrast."""
    originals = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.rglob("*.png"))[::4]]
    changed = [image.resize((40, 40)) for image in originals]
    changed += [ImageEnhance.Contrast(image).enhance(0.95) for image in originals]
    changed += [ImageEnhance.Brightness(image).enhance(1.04) for image in originals]
    return Fingerprints.of(originals + changed)


def all_pairs(prints: Fingerprints) -> dict[tuple[int, int], float]:
    """By the definition: every photo with every other."""
    pixels = prints.thumbnails.reshape(len(prints), -1).astype(float)
    contrast = np.maximum(pixels.std(axis=1), 1.0)
    found = {}
    for i in range(len(prints)):
        for j in range(i + 1, len(prints)):
            distance = np.sqrt(((pixels[i] - pixels[j]) ** 2).mean()) / np.sqrt(contrast[i] * contrast[j])
            apart = int(prints.hashes[i] ^ prints.hashes[j]).bit_count()
            if apart <= MAX_HASH_DISTANCE and distance <= MAX_COLOUR_DISTANCE:
                found[i, j] = distance
    return found


@pytest.fixture(scope="module")
def expected(prints: Fingerprints) -> dict[tuple[int, int], float]:
    return all_pairs(prints)


def test_the_index_finds_exactly_what_comparing_all_pairs_finds(
    prints: Fingerprints, expected: dict[tuple[int, int], float]
) -> None:
    found = {(i, j): distance for i, j, distance in near_duplicates(prints)}
    assert len(expected) > len(prints) / 2
    assert found == {pair: pytest.approx(distance, abs=1e-5) for pair, distance in expected.items()}
    assert list(found) == sorted(found)


def test_photos_hang_in_parts_and_each_is_read_again_only_where_it_is_needed(
    prints: Fingerprints, expected: dict[tuple[int, int], float]
) -> None:
    read: list[int] = []

    def part(number: int):
        def fingerprints() -> Fingerprints:
            read.append(number)
            return Fingerprints(prints.hashes[number::3], prints.thumbnails[number::3])

        return fingerprints

    gallery = Gallery([part(0), part(1)])
    assert list(gallery.near(Fingerprints.of([photo(1)]))) == [] and read == [0, 1]
    gallery.add(part(2))
    sizes = [len(prints.hashes[number::3]) for number in range(3)]
    places = [(number, at) for number in range(3) for at in range(sizes[number])]
    found = {(i, 3 * places[j][1] + places[j][0]) for i, j, _ in gallery.near(prints)}
    both_ways = {pair for i, j in expected for pair in ((i, j), (j, i))}
    assert found == both_ways | {(i, i) for i in range(len(prints))}
    assert read == [0, 1, 2, 0, 1, 2]


def test_nothing_is_near_nothing() -> None:
    nobody = Fingerprints.of([])
    assert list(Gallery().near(Fingerprints.of([photo(1)]))) == []
    assert list(Gallery([lambda: Fingerprints.of([photo(1)])]).near(nobody)) == []
    assert list(near_duplicates(nobody)) == []


def test_a_photo_of_one_colour_has_contrast_enough_to_be_compared() -> None:
    plain = Image.new("RGB", (64, 64), (200, 200, 200))
    assert [(i, j) for i, j, _ in near_duplicates(Fingerprints.of([plain, plain, brighter(plain)]))] == [(0, 1)]


def test_copies_are_found_across_the_blocks_of_a_large_catalog() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 1500, dtype=np.uint64)
    thumbnails = rng.integers(0, 255, (1500, 16, 16, 3), np.uint8)
    hashes[1400], thumbnails[1400] = hashes[3], thumbnails[3]
    assert list(near_duplicates(Fingerprints(hashes, thumbnails))) == [(3, 1400, 0.0)]
