"""Which photos and samples are trained on, and the control they are compared with."""

import pytest

from fashion_pipeline.core.rows import Pair
from fashion_pipeline.core.training.curation import Item, captions, curate


def photos(n: int) -> list[Item]:
    return [Item(f"photo{k:02}", "reference", f"{k}.png", ("green kurta", "a kurta"), k / n) for k in range(n)]


def samples(n: int) -> list[Item]:
    return [Item(f"sample{k:02}", "sample", f"s{k}.png", ("a kurta",), k / n) for k in range(n)]


def chosen(rows: list[Pair], kept: bool, origin: str) -> set[object]:
    return {row.id for row in rows if row.kept == kept and row.origin == origin}


def curated(keep: float = 0.5, share: float = 0.2, threshold: float = 0.6, n: int = 20):
    return curate(photos(n), samples(n), keep=keep, sample_share=share, threshold=threshold)


def test_the_least_typical_photos_are_left_out() -> None:
    rows = curated(keep=0.5)
    assert chosen(rows, True, "reference") == {f"photo{k}" for k in range(10, 20)}


def test_samples_that_do_not_pass_for_real_are_never_trained_on() -> None:
    rows = curated(share=1.0, threshold=0.6)
    assert chosen(rows, True, "sample") == {f"sample{k}" for k in range(12, 20)}
    assert chosen(curated(threshold=float("inf")), True, "sample") == set()


def test_samples_stay_a_small_share_and_the_closest_come_first() -> None:
    assert chosen(curated(share=0.2), True, "sample") == {"sample18", "sample19"}
    assert chosen(curated(share=0.0), True, "sample") == set()


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 1.0])
def test_the_control_is_as_large_as_the_curated_set(keep: float) -> None:
    rows = curated(keep=keep)
    for origin in ("reference", "sample"):
        assert len(chosen(rows, True, origin)) == len(chosen(rows, False, origin))


def test_the_control_does_not_look_at_scores() -> None:
    rows = curated()
    flipped = [Item(p.id, p.origin, p.path, p.captions, -p.score) for p in photos(20)]
    other = curate(flipped, samples(20), keep=0.5, sample_share=0.2, threshold=0.6)
    assert chosen(rows, False, "reference") == chosen(other, False, "reference")
    assert chosen(rows, False, "reference") != chosen(rows, True, "reference")


def test_the_order_of_the_photos_decides_nothing() -> None:
    turned = curate(photos(20)[::-1], samples(20)[::-1], keep=0.5, sample_share=0.2, threshold=0.6)
    assert turned == curated()


def test_every_row_says_why_it_was_taken_and_has_one_caption() -> None:
    rows = curated()
    assert len([row for row in rows if row.id == "photo19" and row.kept]) == 2
    why = {(row.origin, row.kept): row.why for row in rows}
    assert why["reference", True] == "among the 10 most typical of 20 photos"
    assert "(0.600)" in str(why["sample", True])
    assert why["reference", False] == why["sample", False] == "drawn at random"


def test_one_photo_is_kept_however_small_the_share() -> None:
    assert chosen(curated(keep=0.01), True, "reference") == {"photo19"}


def test_a_hand_written_caption_takes_the_place_of_the_format_and_the_plain_prompt_stays() -> None:
    assert captions("my kurta", "green kurta", "a kurta") == ("my kurta", "a kurta")
    assert captions(None, "green kurta", "a kurta") == ("green kurta", "a kurta")
    assert captions("", "a kurta", "a kurta") == ("a kurta",)
