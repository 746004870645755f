"""Stage 8, forgetting: does the model still draw other styles, from their own plain prompts?"""

from collections.abc import Mapping, Sequence

import numpy as np

from fashion_pipeline.core.features.similarity import paired_cosines
from fashion_pipeline.core.prompts.formats import write
from fashion_pipeline.core.prompts.planning import Shot, photos_of
from fashion_pipeline.core.rows import Purpose, Role, Sample, Score, Split
from fashion_pipeline.stages.features import neighbours
from fashion_pipeline.stages.models import Models
from fashion_pipeline.store.store import Store

OTHERS = "others"
"""The name of these prompts, as plain and best are of the style's own."""


def plan_others(store: Store, models: Models, style: str, most: int) -> list[Shot]:
    """The plain prompts of other styles for dev products of theirs, at most so many, shared out evenly."""
    described, _ = neighbours(store, style)
    fits = models.prompt_fits()
    each = most // len(described) if described else 0
    shots = []
    for features in described:
        plain = write("plain", store.sources.subject(features.style), [], fits)
        photos = photos_of(store.photos(store.records.input(features, "catalog")), Split.DEV, each)
        shots += [Shot(plain, photo, Purpose.OTHERS, OTHERS) for photo in photos]
    return shots


def forgetting_scores(store: Store, style: str, samples: Sequence[Sample], encoders: Mapping[str, str]) -> list[Score]:
    """Samples of other styles, which are embedded already, against their photos; `encoders` is role → fingerprint.

    Photos that another encoder or judge described are left out.
    """
    others, _ = neighbours(store, style)
    drawn = [sample for sample in samples if sample.purpose == Purpose.OTHERS]
    found = []
    for role in Role:
        made = store.sample_features.index(style, role, encoders[role])
        for features in others:
            ids = {photo.id for photo in store.photos(store.records.input(features, "catalog"))}
            photos = store.features.index(features.style, role, encoders[role])
            known = [sample for sample in drawn if sample.reference in ids and sample.reference in photos]
            if not known:
                continue
            rows = made.rows([sample.id for sample in known]), photos.rows([sample.reference for sample in known])
            found += [
                Score(sample.model_name, OTHERS, role.value, "product", Split.DEV.value, sample.product_group, value)
                for sample, value in zip(known, np.asarray(paired_cosines(*rows), float).tolist(), strict=True)
            ]
    return found
