"""Which photos belong together, and that nothing moves once it has been assigned."""

import pytest
from PIL import Image

from fashion_pipeline.core.catalog.fingerprints import Fingerprints
from fashion_pipeline.core.catalog.splits import SHARES, assign_splits, held_out, split_of
from fashion_pipeline_tests.intake.planting import brighter, photo


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
    added = Fingerprints.of([brighter(photo(2)), photo(3), photo(4), photo(5)])
    again = assign_splits(["new", *keys[3:]], added, {0: [(0.01, "p2")]})
    assert again.groups == ["p2", "p3", "p4", "p5"] and again.splits[0] == first.splits[2]
    assert assign_splits(keys, prints).splits[:3] == first.splits


def test_a_photo_joins_the_closest_founder_be_it_known_or_new() -> None:
    search = [key for key in map(str, range(100)) if split_of(key) == "search"]
    copies = Fingerprints.of([photo(1), brighter(photo(1))])
    near, far = (assign_splits(search[:2], copies, {1: [(distance, search[2])]}) for distance in (0.0, 0.09))
    assert near.groups == [search[0], search[2]] and far.groups == [search[0], search[0]]


def test_a_photo_between_two_splits_is_named_with_both() -> None:
    keys = [key_in("search"), key_in("test")]
    result = assign_splits(["copy"], Fingerprints.of([photo(1)]), {0: [(0.0, key) for key in keys]})
    assert result.bridges[0] is not None and set(result.bridges[0]) == set(keys)


def test_a_model_trained_on_the_rest_has_seen_no_test_photo_nor_its_copy() -> None:
    keys = [key_in("test"), key_in("search"), key_in("dev")]
    assert held_out(keys, Fingerprints.of([photo(1), brighter(photo(1)), photo(2)])).tolist() == [True, True, False]


def test_the_splits_have_the_promised_shares() -> None:
    splits = [split_of(f"product {number}") for number in range(5000)]
    for split, share in SHARES.items():
        assert splits.count(split) / 5000 == pytest.approx(share, abs=0.02)
