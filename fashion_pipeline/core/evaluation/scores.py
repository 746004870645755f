"""From cosines of single samples to the scores of products: the table every figure is computed from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fashion_pipeline.core.features.embeddings import FeatureIndex
from fashion_pipeline.core.features.similarity import Anchors, paired_cosines
from fashion_pipeline.core.rows import Role, Sample, Score, Split

HELD_OUT = (Split.DEV, Split.TEST)
"""What samples are drawn for that a model or prompt is judged by."""


def similarity_rows(
    samples: Sequence[Sample], photos: FeatureIndex, drawn: FeatureIndex, anchors: Anchors | None
) -> list[dict[str, Any]]:
    """Rows of table `similarities`: each sample against its own photo, by one encoder or judge."""
    pairs = list(dict.fromkeys((sample.id, sample.reference) for sample in samples))
    if not pairs:
        return []
    cosines = paired_cosines(drawn.rows([a for a, _ in pairs]), photos.rows([b for _, b in pairs]))
    return [
        {
            "sample": sample,
            "reference": reference,
            "role": photos.role,
            "model": photos.model,
            "cosine": float(cosine),
            "anchored": anchors.place(float(cosine)) if anchors else None,
        }
        for (sample, reference), cosine in zip(pairs, cosines, strict=True)
    ]


def sample_scores(samples: Sequence[Sample], values: Mapping[str, float], measure: str) -> list[Score]:
    """For each model, prompt, split and product the mean of a measure (sample id → value) over the product's samples.

    Only samples drawn for `dev` and `test` count, and of these the ones that have a value.
    """
    collected: dict[tuple[str, str, str, str], list[float]] = {}
    for sample in samples:
        if sample.purpose in HELD_OUT and sample.id in values:
            key = (sample.model_name, sample.prompt_name, sample.purpose, sample.product_group)
            collected.setdefault(key, []).append(values[sample.id])
    return [
        Score(model, prompt, measure, "product", split, group, float(np.mean(found)))
        for (model, prompt, split, group), found in collected.items()
    ]


def product_scores(samples: Sequence[Sample], similarities: Sequence[Mapping[str, Any]]) -> list[Score]:
    """For each model, prompt, encoder, split and product the mean over the product's samples.

    Only samples drawn for `dev` and `test` count; those of the search chose the prompt.
    """
    found = {(row["sample"], row["reference"], row["role"]): row for row in similarities}
    collected: dict[tuple[str, str, str, str, str], list[Mapping[str, Any]]] = {}
    for sample in samples:
        for role in Role:
            similarity = found.get((sample.id, sample.reference, role.value))
            if sample.purpose in HELD_OUT and similarity:
                key = (sample.model_name, sample.prompt_name, role.value, sample.purpose, sample.product_group)
                collected.setdefault(key, []).append(similarity)
    return [
        Score(
            model,
            prompt,
            role,
            "product",
            split,
            group,
            float(np.mean([row["cosine"] for row in rows])),
            anchored=None if rows[0]["anchored"] is None else float(np.mean([row["anchored"] for row in rows])),
        )
        for (model, prompt, role, split, group), rows in collected.items()
    ]
