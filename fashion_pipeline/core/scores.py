"""From cosines of single samples to the scores of products: the table every figure is computed from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fashion_pipeline.core.features import FeatureIndex
from fashion_pipeline.core.similarity import Anchors, paired_cosines


def similarity_rows(
    samples: Sequence[Mapping[str, Any]],
    photos: FeatureIndex,
    drawn: FeatureIndex,
    anchors: Anchors | None,
) -> list[dict[str, Any]]:
    """Rows of table `similarities`: each sample against its own photo, by one encoder or judge."""
    pairs = list(dict.fromkeys((str(row["id"]), str(row["reference"])) for row in samples))
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


def score_rows(samples: Sequence[Mapping[str, Any]], similarities: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of table `scores`: for each model, prompt, encoder, split and product the mean over the product's samples.

    Only samples drawn for `dev` and `test` count; those of the search chose the prompt.
    """
    found = {(row["sample"], row["role"]): row for row in similarities}
    collected: dict[tuple[str, str, str, str, str], list[Mapping[str, Any]]] = {}
    for row in samples:
        for role in ("encoder", "judge"):
            if row["purpose"] != "search" and (row["id"], role) in found:
                key = (row["model_name"], row["prompt_name"], role, row["purpose"], row["product_group"])
                collected.setdefault(key, []).append(found[row["id"], role])
    return [
        {
            "model": model,
            "prompt": prompt,
            "encoder": role,
            "split": split,
            "product_group": group,
            "cosine": float(np.mean([row["cosine"] for row in rows])),
            "anchored": None if rows[0]["anchored"] is None else float(np.mean([row["anchored"] for row in rows])),
        }
        for (model, prompt, role, split, group), rows in collected.items()
    ]
