"""How far the encoder's probabilities can be taken at their word: a temperature a facet, and what is left of the error.

Contrastive encoders rank answers well and are too sure, or not sure enough, of them. Dividing the logits by one
temperature leaves the ranking as it is and lets 0.7 mean that about 70 of 100 such answers are right: Guo et al. 2017
(ICML, arXiv:1706.04599).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion_pipeline.core.features.attributes import softmax

Logits = NDArray[np.float32]

LEAST_PHOTOS = 50
"""Photos with a known answer from which a temperature is fitted; with fewer that of the vocabulary holds."""

BINS = 15
"""Bins of confidence, as in Guo et al. 2017."""

_FOLDS = 2


@dataclass(frozen=True)
class Calibration:
    """What was fitted for a facet."""

    temperature: float
    """What logits are divided by: above 1 where the encoder was too sure."""
    photos: int
    """With a known answer."""
    error_before: float
    """Expected calibration error with temperature 1, 0 to 1."""
    error_after: float
    """The same by temperatures that were fitted without the product that they are tried on."""


def calibrate(logits: Logits, truths: Sequence[int], groups: Sequence[str]) -> Calibration | None:
    """(n, k) logits of n photos over k values, their right values (0 to k - 1), and their product groups.

    None with fewer than LEAST_PHOTOS photos, or of a single product. The error afterwards is measured by
    cross-fitting over product groups, so that no photo is judged by a temperature that saw its product.
    """
    right, keys = np.asarray(truths, int), np.asarray(groups)
    names = np.unique(keys)
    if len(right) < LEAST_PHOTOS or len(names) < _FOLDS:
        return None
    fold = dict(zip(names.tolist(), (np.arange(len(names)) % _FOLDS).tolist(), strict=True))
    folds = np.array([fold[key] for key in keys.tolist()])
    apart = np.empty_like(logits)
    for number in range(_FOLDS):
        held = folds == number
        apart[held] = logits[held] / fit_temperature(logits[~held], right[~held])
    return Calibration(
        fit_temperature(logits, right),
        len(right),
        expected_calibration_error(softmax(logits), right),
        expected_calibration_error(softmax(apart), right),
    )


def fit_temperature(logits: Logits, truths: NDArray[np.int_]) -> float:
    """(n, k) logits and (n,) right values → the temperature, 0.05 to 20, with the least negative log-likelihood."""
    from scipy.optimize import minimize_scalar

    def loss(logarithm: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(logarithm)
        scaled -= scaled.max(axis=1, keepdims=True)
        chosen = scaled[np.arange(len(truths)), truths]
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - chosen))

    limits = (float(np.log(0.05)), float(np.log(20.0)))
    return float(np.exp(minimize_scalar(loss, bounds=limits, method="bounded").x))


def expected_calibration_error(probabilities: NDArray[np.float32], truths: NDArray[np.int_]) -> float:
    """(n, k) probabilities and (n,) right values → how far confidence and accuracy lie apart, 0 to 1.

    Over bins of equal width of the likeliest value's probability, weighted by the photos in them.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == truths
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        (bins == number).mean() * abs(correct[bins == number].mean() - confidence[bins == number].mean())
        for number in np.unique(bins)
    ]
    return float(sum(gaps))


def known_answers(given: Sequence[Mapping[str, str]], facet: str, values: Sequence[str]) -> tuple[list[int], list[int]]:
    """Attributes that came with photos → the places of the photos whose value the vocabulary knows, and that value's.

    Upper and lower case are the same.
    """
    place = {value.casefold(): position for position, value in enumerate(values)}
    answers = [(at, place.get(each.get(facet, "").strip().casefold())) for at, each in enumerate(given)]
    answered = [(at, value) for at, value in answers if value is not None]
    return [at for at, _ in answered], [value for _, value in answered]
