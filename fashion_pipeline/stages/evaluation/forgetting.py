"""Stage 8, forgetting: does the model still draw other styles, from their own plain prompts?"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

import numpy as np

from fashion_pipeline.core.features.similarity import paired_cosines
from fashion_pipeline.core.prompts.formats import write
from fashion_pipeline.core.prompts.planning import Shot, photos_of
from fashion_pipeline.core.prompts.search import sample_order
from fashion_pipeline.core.rows import Photo, Purpose, Role, Sample, Score, Split
from fashion_pipeline.stages.drawing.base import prompt_fits
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.store import Store

OTHERS = "others"
"""The name of these prompts, as plain and best are of the style's own."""


def plan_others(store: Store, models: Models, style: str, most: int) -> list[Shot]:
    """The plain prompts of other styles for dev products of theirs, at most so many, shared out evenly."""
    others = sorted(islice(_others(store, style), most))
    fits = prompt_fits(models)
    shots = []
    for other, photos in others:
        plain = write("plain", store.sources.subject(other), [], fits)
        shown = photos_of(photos, Split.DEV, most // len(others))
        shots += [Shot(plain, photo, Purpose.OTHERS, OTHERS) for photo in shown]
    return shots


def _others(store: Store, style: str) -> Iterator[tuple[str, Sequence[Photo]]]:
    """Other styles and their photos, in an order that is chance but always the same; damaged ones are left out."""
    for other in sample_order([each for each in store.records.styles("features") if each != style], OTHERS):
        with suppress(StorageError):
            features = store.records.latest("features", other)
            yield other, store.photos(store.records.input(features, "catalog"))


def forgetting_scores(store: Store, style: str, samples: Sequence[Sample], encoders: Mapping[str, str]) -> list[Score]:
    """Samples of other styles, which are embedded already, against their photos; `encoders` is role → fingerprint.

    Photos that another encoder or judge described are left out.
    """
    drawn = [sample for sample in samples if sample.purpose == Purpose.OTHERS]
    drawn_index = {role: store.sample_features.index(style, role, encoders[role]) for role in Role}
    left = {sample.reference for sample in drawn}
    scores: list[Score] = []
    for other, listed in _others(store, style) if left else ():
        ids = left & {photo.id for photo in listed}
        left -= ids
        for role in Role if ids else ():
            photos = store.features.index(other, role, encoders[role])
            comparable = [sample for sample in drawn if sample.reference in ids and sample.reference in photos]
            rows = (
                drawn_index[role].rows([sample.id for sample in comparable]),
                photos.rows([sample.reference for sample in comparable]),
            )
            scores += [
                Score(sample.model_name, OTHERS, role.value, "product", Split.DEV.value, sample.product_group, value)
                for sample, value in zip(comparable, np.asarray(paired_cosines(*rows), float).tolist(), strict=True)
            ]
        if not left:
            break
    return sorted(scores, key=lambda score: (score.measure, score.product_group))
