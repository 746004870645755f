"""Stage 8, what the samples of each model and prompt are like together: by the judge, and as plain pictures."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fashion_pipeline.core.catalog.fingerprints import Fingerprints, fingerprint
from fashion_pipeline.core.evaluation import distributions
from fashion_pipeline.core.evaluation.defects import flat, repeated
from fashion_pipeline.core.evaluation.measures import CONSISTENCY, COVERED, DISTANCE, DIVERSITY, FLAT, REPEATED, Measure
from fashion_pipeline.core.evaluation.scores import HELD_OUT
from fashion_pipeline.core.evaluation.statistics import Condition, Interval
from fashion_pipeline.core.evaluation.verdicts import PHOTOS
from fashion_pipeline.core.features.embeddings import FeatureIndex
from fashion_pipeline.core.rows import Sample, Score
from fashion_pipeline.intake.photos import open_photo
from fashion_pipeline.stages.drawing.workers import in_threads
from fashion_pipeline.store.store import Store

Prints = Mapping[str, tuple[int, NDArray[np.uint8]]]
"""Sample → perceptual hash and thumbnail."""


def prints_of(store: Store, samples: Sequence[Sample]) -> Prints:
    """The fingerprint of each image that was drawn to judge by."""
    ids = list(dict.fromkeys(sample.id for sample in samples if sample.purpose in HELD_OUT))
    images = in_threads(lambda id_: open_photo(str(store.samples.path(id_))), ids)
    return {id_: fingerprint(image) for id_, image in zip(ids, images, strict=True)}


def set_scores(samples: Sequence[Sample], prints: Prints, photos: FeatureIndex, drawn: FeatureIndex) -> list[Score]:
    """All measures of `core.evaluation.distributions` and `defects`, split by split; `photos` and `drawn` by the judge.

    Sets of fewer than `distributions.LEAST_PRODUCTS` products are not measured.
    """
    scores: list[Score] = []
    for split in HELD_OUT:
        cells: dict[Condition, dict[str, Sample]] = {}
        for sample in samples:
            if sample.purpose == split:
                cells.setdefault(Condition(sample.model_name, sample.prompt_name), {})[sample.product_group] = sample
        cells = {cell: of for cell, of in cells.items() if len(of) >= distributions.LEAST_PRODUCTS}
        for cell, of in cells.items():
            scores += _cell(cell, split, list(of.values()), prints, photos, drawn)
        if cells:
            shown = next(iter(cells.values()))
            real = photos.rows([sample.reference for sample in shown.values()])
            scores += _products(PHOTOS, CONSISTENCY, split, list(shown), distributions.consistency(real))
            scores.append(_set(PHOTOS, DIVERSITY, split, distributions.diversity(real)))
    return scores


def _cell(
    cell: Condition, split: str, samples: list[Sample], prints: Prints, photos: FeatureIndex, drawn: FeatureIndex
) -> list[Score]:
    products = [sample.product_group for sample in samples]
    drawn_rows, real = drawn.rows([s.id for s in samples]), photos.rows([s.reference for s in samples])
    looks = Fingerprints.stack([prints[sample.id] for sample in samples])
    return [
        *_products(cell, CONSISTENCY, split, products, distributions.consistency(drawn_rows)),
        *_products(cell, COVERED, split, products, distributions.covered(drawn_rows, real)),
        *_products(cell, FLAT, split, products, flat(looks)),
        *_products(cell, REPEATED, split, products, repeated(looks)),
        _set(cell, DISTANCE, split, distributions.distance(drawn_rows, real)),
        _set(cell, DIVERSITY, split, distributions.diversity(drawn_rows)),
    ]


def _products(
    cell: Condition, measure: Measure, split: str, products: Sequence[str], values: NDArray[np.generic]
) -> list[Score]:
    return [
        Score(*cell, measure.name, "product", split, product, float(value))
        for product, value in zip(products, values, strict=True)
    ]


def _set(cell: Condition, measure: Measure, split: str, value: Interval) -> Score:
    return Score(*cell, measure.name, "set", split, None, value.mean, value.low, value.high)
