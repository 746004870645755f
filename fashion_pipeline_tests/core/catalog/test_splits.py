"""Which photos belong together, and that nothing moves once it has been assigned."""

import numpy as np
import pytest
from PIL import Image

from fashion_pipeline.core.catalog.splits import (
    SHARES,
    Fingerprints,
    assign_splits,
    held_out,
    near_duplicates,
    split_of,
)


def photo(seed: int, size: int = 96) -> Image.Image:
    """A smooth pattern that differs much from seed to seed."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def brighter(image: Image.Image) -> Image.Image:
    return image.point(lambda value: min(255, value + 4))


def key_in(split: str, start: int = 0) -> str:
    return next(str(number) for number in range(start, start + 1000) if split_of(str(number)) == split)


def test_a_retouched_or_resized_copy_lands_in_the_split_of_its_original() -> None:
    copies = [photo(1), brighter(photo(1)), photo(1).resize((48, 48)), photo(2)]
    result = assign_splits(["a", "b", "c", "d"], Fingerprints.of(copies))
    assert result.groups == ["a", "a", "a", "d"]
    assert len(set(result.splits[:3])) == 1 and not any(result.bridges)


def test_the_same_cut_in_another_colour_is_another_product() -> None:
    red, green, blue = photo(1).split()
    result = assign_splits(["a", "b"], Fingerprints.of([photo(1), Image.merge("RGB", (blue, red, green))]))
    assert result.groups == ["a", "b"]


def test_adding_photos_never_moves_one_that_is_assigned() -> None:
    prints = Fingerprints.of([photo(seed) for seed in range(6)])
    keys = [f"p{seed}" for seed in range(6)]
    first = assign_splits(keys[:3], Fingerprints(prints.hashes[:3], prints.thumbnails[:3]))
    founded = list(zip(keys[:3], first.groups, strict=True))
    known = Fingerprints(prints.hashes[:3], prints.thumbnails[:3])
    again = assign_splits(
        ["new", *keys[3:]], Fingerprints.of([brighter(photo(2)), photo(3), photo(4), photo(5)]), founded, known
    )
    assert again.groups == ["p2", "p3", "p4", "p5"] and again.splits[0] == first.splits[2]
    assert assign_splits(keys, prints).splits[:3] == first.splits


def test_a_photo_between_two_splits_is_named_with_both() -> None:
    keys = [key_in("search"), key_in("test"), "copy"]
    prints = Fingerprints.of([photo(1), photo(1), photo(1)])
    result = assign_splits(
        ["copy"],
        Fingerprints.of([photo(1)]),
        [(k, k) for k in keys[:2]],
        Fingerprints(prints.hashes[:2], prints.thumbnails[:2]),
    )
    assert result.bridges[0] is not None and set(result.bridges[0]) == set(keys[:2])


def test_a_model_trained_on_the_rest_has_seen_no_test_photo_nor_its_copy() -> None:
    keys = [key_in("test"), key_in("search"), key_in("dev")]
    assert held_out(keys, Fingerprints.of([photo(1), brighter(photo(1)), photo(2)])).tolist() == [True, True, False]


def test_copies_are_found_across_the_blocks_of_a_large_catalog() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 1500, dtype=np.uint64)
    thumbnails = rng.integers(0, 255, (1500, 16, 16, 3), np.uint8)
    hashes[1400], thumbnails[1400] = hashes[3], thumbnails[3]
    assert list(near_duplicates(Fingerprints(hashes, thumbnails))) == [(3, 1400, 0.0)]


def test_the_splits_have_the_promised_shares() -> None:
    splits = [split_of(f"product {number}") for number in range(5000)]
    for split, share in SHARES.items():
        assert splits.count(split) / 5000 == pytest.approx(share, abs=0.02)
