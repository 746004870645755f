"""Cosines, the anchors they are placed between, and looking embeddings up."""

import numpy as np
import pyarrow as pa
import pytest

from fashion_pipeline.core.features.embeddings import FeatureIndex, feature_table
from fashion_pipeline.core.features.similarity import (
    Anchors,
    anchors,
    mean_similarity,
    paired_cosines,
    typicality,
    within_similarity,
)
from fashion_pipeline.core.tables import schema


def unit(rows: object) -> np.ndarray:
    matrix = np.array(rows, np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def near(direction: list[float], n: int, seed: int = 0, spread: float = 0.2) -> np.ndarray:
    return unit(np.array(direction) + np.random.default_rng(seed).normal(0, spread, (n, len(direction))))


def table(*parts: tuple[list[str], str, str, np.ndarray]):
    return pa.concat_tables([schema("features").empty_table(), *(feature_table("features", *part) for part in parts)])


def test_no_cosine_leaves_its_range_by_rounding() -> None:
    same = unit(np.random.default_rng(0).normal(size=(200, 512)))
    assert paired_cosines(same, same).max() <= 1.0
    assert paired_cosines(same, -same).min() >= -1.0


def test_rows_that_are_no_unit_rows_are_seen_by_their_cosine() -> None:
    assert paired_cosines(unit([[1, 0]]) * 1.5, unit([[1, 0]])).tolist() == [1.5]


def test_photos_are_compared_row_by_row_and_with_all() -> None:
    a, b = unit([[1, 0], [0, 1]]), unit([[1, 0], [0, -1]])
    assert paired_cosines(a, b).tolist() == [1.0, -1.0]
    assert mean_similarity(a, b).tolist() == [0.5, -0.5]


def test_a_photo_is_not_typical_because_its_own_product_was_photographed_often() -> None:
    embeddings = unit([[0, 1], [0, 1], [0, 1], [1, 0], [1, 0.1]])
    scores = typicality(embeddings, ["often", "often", "often", "b", "c"])
    assert scores[0] < 0.1 < scores[3]
    assert typicality(embeddings[:3], ["often"] * 3).tolist() == [0.0, 0.0, 0.0]


def test_real_photos_lie_at_one_and_other_styles_at_zero() -> None:
    style, others = near([1, 0, 0], 8), near([0, 1, 0], 6, seed=1)
    found = anchors(style, list("abcdefgh"), others.mean(axis=0))
    assert found is not None
    assert found.place(found.across) == 0.0 and found.place(found.within) == 1.0
    assert found.place(found.across - 0.1) < 0.0 and found.place(1.0) > 1.0
    assert found.across < 0.5 < found.within


def test_photos_of_one_product_do_not_raise_the_upper_anchor() -> None:
    style = unit([[1, 0], [1, 0], [0.8, 0.6]])
    found = anchors(style, ["a", "a", "b"], np.array([0.0, -1.0]))
    assert found is not None and found.within == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("groups", "others"),
    [
        ("abcd", None),
        ("aaaa", np.array([0.0, 1.0, 0.0])),
        ("abcd", near([1, 0, 0], 4).mean(axis=0)),
    ],
    ids=["no other style", "a single product", "no closer to itself than to others"],
)
def test_there_are_no_anchors_where_nothing_tells_the_style_from_others(groups: str, others: np.ndarray | None) -> None:
    assert anchors(near([1, 0, 0], 4), list(groups), others) is None


def test_means_of_groups_stand_for_all_pairs_of_photos() -> None:
    rows, groups = near([1, 0, 0], 40), [str(number % 7) for number in range(40)]
    apart = np.not_equal.outer(groups, groups)
    cosines = (rows @ rows.T) * apart
    assert typicality(rows, groups) == pytest.approx(cosines.sum(axis=1) / apart.sum(axis=1), abs=1e-6)
    assert within_similarity(rows, groups) == pytest.approx(cosines.sum() / apart.sum(), abs=1e-6)


def test_how_alike_a_style_is_to_itself_needs_no_other_style() -> None:
    assert within_similarity(unit([[1, 0], [1, 0], [0.8, 0.6]]), ["a", "a", "b"]) == pytest.approx(0.8)
    assert within_similarity(unit([[1, 0], [1, 0]]), ["a", "a"]) is None


def test_a_style_without_photos_has_no_anchors() -> None:
    assert anchors(np.empty((0, 3), np.float32), [], np.array([1.0, 0.0, 0.0])) is None


def test_anchors_place_a_cosine_linearly() -> None:
    assert Anchors(across=0.2, within=0.6).place(0.5) == pytest.approx(0.75)


def test_embeddings_of_another_model_or_role_are_never_mixed_in() -> None:
    rows = table(
        (["a", "b"], "encoder", "clip", unit([[1, 0], [0, 1]])),
        (["a"], "encoder", "old", unit([[1, 1]])),
        (["a", "c"], "judge", "clip", unit([[1, 2, 3], [3, 2, 1]])),
    )
    found = FeatureIndex(rows, "encoder", "clip")
    assert found.rows(["b", "a", "b"]).tolist() == [[0, 1], [1, 0], [0, 1]]
    assert "a" in found and "c" not in found
    assert found.missing(["c", "a", "c", "d"]) == ["c", "d"]
    assert found.known(["c", "b"]).tolist() == [[0, 1]]
    assert FeatureIndex(rows, "judge", "clip").rows(["c"]).shape == (1, 3)
    with pytest.raises(KeyError, match="c"):
        found.rows(["a", "c"])


def test_a_feature_table_without_the_model_has_no_embeddings() -> None:
    found = FeatureIndex(table(), "encoder", "clip")
    assert found.missing(["a"]) == ["a"]
    assert len(found.rows([])) == 0


def test_an_embedding_that_was_written_twice_shifts_no_other() -> None:
    rows = table((["a", "b"], "encoder", "clip", unit([[1, 0], [0, 1]])), (["a"], "encoder", "clip", unit([[1, 0]])))
    assert FeatureIndex(rows, "encoder", "clip").rows(["a", "b"]).tolist() == [[1, 0], [0, 1]]


def test_pieces_of_a_table_take_memory_once_and_count_as_the_whole() -> None:
    parts = [table(([str(n)], "encoder", "clip", unit([[1, n]]))) for n in range(5)]
    whole = FeatureIndex(pa.concat_tables(parts), "encoder", "clip")
    for most in (0, 3, 9):
        pieces = FeatureIndex(iter(parts), "encoder", "clip", most)
        assert pieces.rows(list("40213")).tolist() == whole.rows(list("40213")).tolist()
    assert pieces.at(pieces.positions("3")).tolist() == whole.rows(["3"]).tolist()
