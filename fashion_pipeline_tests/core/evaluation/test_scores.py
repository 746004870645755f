"""From single cosines to the scores that every figure rests on."""

import numpy as np
import pytest

from fashion_pipeline.core.evaluation.scores import product_scores, similarity_table
from fashion_pipeline.core.features.embeddings import FeatureIndex, feature_table
from fashion_pipeline.core.features.similarity import Anchors
from fashion_pipeline.core.rows import Sample, Score, rows_of
from fashion_pipeline.core.tables import rows_to_table, schema


def index(table: str, embeddings: dict[str, list[float]], role: str = "encoder") -> FeatureIndex:
    rows = feature_table(table, list(embeddings), role, "clip", np.array(list(embeddings.values())))
    return FeatureIndex(rows, role, "clip")


def sample(id_: str, group: str, purpose: str = "dev", prompt: str = "plain", reference: str = "photo") -> Sample:
    drawn = ("m", "original", prompt, "c", "a coat", "", 1, 5, 3.0, 64, 64)
    return Sample(id_, *drawn, reference, group, purpose, purpose)


def similarity(
    sample_: str, cosine: float, role: str = "encoder", anchored: float | None = None, reference: str = "photo"
):
    told = {"sample": sample_, "reference": reference, "role": role, "model": "clip"}
    return told | {"cosine": cosine, "anchored": anchored}


def scored(samples: list[Sample], measured: list[dict[str, object]]) -> list[Score]:
    return product_scores(rows_to_table("samples", rows_of(samples)), rows_to_table("similarities", measured))


PHOTOS = index("features", {"photo": [1.0, 0.0], "other": [0.0, 1.0]})
DRAWN = index("sample_features", {"s1": [0.6, 0.8], "s2": [0.0, -1.0]})


def test_a_sample_is_measured_against_its_own_photo() -> None:
    table = similarity_table([("s1", "photo"), ("s2", "other")], PHOTOS, DRAWN, None)
    rows = table.to_pylist()
    assert [(row["sample"], row["reference"], row["cosine"]) for row in rows] == [
        ("s1", "photo", pytest.approx(0.6)),
        ("s2", "other", pytest.approx(-1.0)),
    ]
    assert {row["anchored"] for row in rows} == {None}
    assert table.schema == schema("similarities")


def test_anchored_similarity_is_given_where_there_are_anchors() -> None:
    table = similarity_table([("s1", "photo")], PHOTOS, DRAWN, Anchors(across=0.2, within=0.6))
    assert table["anchored"].to_pylist() == [pytest.approx(1.0)]


def test_a_sample_that_serves_two_purposes_is_measured_once() -> None:
    assert similarity_table([("s1", "photo"), ("s1", "photo")], PHOTOS, DRAWN, None).num_rows == 1
    assert similarity_table([], PHOTOS, DRAWN, None).num_rows == 0


def test_a_sample_without_an_embedding_is_an_error_and_not_a_score_of_zero() -> None:
    with pytest.raises(KeyError, match="s9"):
        similarity_table([("s9", "photo")], PHOTOS, DRAWN, None)


def test_a_product_drawn_more_often_than_others_counts_once() -> None:
    samples = [sample("s1", "a"), sample("s2", "a"), sample("s3", "b")]
    measured = [similarity("s1", 0.2), similarity("s2", 0.4), similarity("s3", 0.9)]
    scores = {row.product_group: row.value for row in scored(samples, measured)}
    assert scores == {"a": pytest.approx(0.3), "b": pytest.approx(0.9)}


def test_images_that_chose_the_prompt_do_not_score_it() -> None:
    samples = [sample("s1", "a", purpose="search"), sample("s2", "b", purpose="test")]
    rows = scored(samples, [similarity("s1", 1.0), similarity("s2", 0.5)])
    assert [(row.split, row.product_group) for row in rows] == [("test", "b")]


def test_encoder_and_judge_are_scored_apart_and_a_missing_one_adds_no_row() -> None:
    samples = [sample("s1", "a"), sample("s2", "b")]
    rows = scored(samples, [similarity("s1", 0.5), similarity("s1", 0.1, "judge"), similarity("s2", 0.7)])
    found = {(row.measure, row.product_group): pytest.approx(row.value) for row in rows}
    assert found == {("encoder", "a"): 0.5, ("judge", "a"): 0.1, ("encoder", "b"): 0.7}


def test_the_best_prompt_is_scored_also_where_it_is_the_plain_one() -> None:
    samples = [sample("s1", "a", prompt="plain"), sample("s1", "a", prompt="best")]
    rows = scored(samples, [similarity("s1", 0.5, anchored=0.4)])
    assert sorted((row.prompt, row.value, row.anchored) for row in rows) == [
        ("best", 0.5, pytest.approx(0.4)),
        ("plain", 0.5, pytest.approx(0.4)),
    ]
    assert rows_to_table("scores", rows_of(rows)).num_rows == 2
