"""Temperatures: fitted ones undo a known distortion, and the error is that of photos they were not fitted on."""

import numpy as np
import pytest

from fashion_pipeline.core.features.attributes import softmax
from fashion_pipeline.core.features.calibration import (
    LEAST_PHOTOS,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    known_answers,
)


def honest(n: int, k: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the truth: the right value of each row is drawn from it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, k)).astype(np.float32)
    truths = np.array([rng.choice(k, p=row / row.sum()) for row in softmax(logits).astype(np.float64)])
    return logits, truths


@pytest.mark.parametrize("distortion", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_known_distortion(distortion: float) -> None:
    logits, truths = honest(4000)
    assert fit_temperature(logits * distortion, truths) == pytest.approx(distortion, rel=0.08)


def test_too_sure_an_encoder_is_calibrated() -> None:
    logits, truths = honest(2000)
    found = calibrate(logits * 4, truths, [f"p{i}" for i in range(2000)])
    assert found is not None
    assert found.error_before > 0.15
    assert found.error_after < 0.05
    assert found.photos == 2000


def test_the_error_afterwards_is_not_flattered_by_the_photos_that_were_fitted() -> None:
    """Answers that are right for half of the products by chance: a temperature fitted on all would look better."""
    logits = np.tile(np.array([[4.0, 0.0]], np.float32), (60, 1))
    truths = [0] * 30 + [1] * 30
    found = calibrate(logits, truths, ["a"] * 30 + ["b"] * 30)
    assert found is not None
    assert found.error_after > 0.4


def test_the_expected_calibration_error_of_a_known_case() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10, np.float32)
    truths = np.array([0] * 8 + [1] * 2 + [0] * 6 + [1] * 4)
    assert expected_calibration_error(probabilities, truths) == pytest.approx(0.5 * 0.1 + 0.5 * 0.0, abs=1e-6)


def test_few_photos_give_no_temperature() -> None:
    logits, truths = honest(LEAST_PHOTOS - 1)
    assert calibrate(logits, truths, [str(i) for i in range(len(truths))]) is None
    logits, truths = honest(LEAST_PHOTOS)
    assert calibrate(logits, truths, ["one"] * LEAST_PHOTOS) is None
    assert calibrate(logits, truths, [str(i) for i in range(LEAST_PHOTOS)]) is not None


def test_answers_are_known_where_the_vocabulary_has_the_value_that_came_with_the_photo() -> None:
    given = [{"colour": "Red"}, {}, {"colour": " blue"}, {"colour": "Puce"}, {"garment": "Red"}]
    assert known_answers(given, "colour", ["Blue", "Red"]) == ([0, 2], [1, 0])
