"""From cosines of single samples to the scores of products: the table every figure is computed from."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fashion_pipeline.core.features.embeddings import FeatureIndex
from fashion_pipeline.core.features.similarity import Anchors, paired_cosines
from fashion_pipeline.core.rows import Sample, Score, Split
from fashion_pipeline.core.tables import schema

HELD_OUT = (Split.DEV, Split.TEST)
"""What samples are drawn for that a model or prompt is judged by."""

_AT_A_TIME = 8192


def similarity_table(
    pairs: Sequence[tuple[str, str]], photos: FeatureIndex, drawn: FeatureIndex, anchors: Anchors | None
) -> pa.Table:
    """Table `similarities`: each (sample, photo) once, by one encoder or judge. Raises KeyError for an unknown one."""
    pairs = list(dict.fromkeys(pairs))
    drawn_at, real = drawn.positions(a for a, _ in pairs), photos.positions(b for _, b in pairs)
    cosines = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _AT_A_TIME):
        rows = slice(start, start + _AT_A_TIME)
        cosines[rows] = paired_cosines(drawn.at(drawn_at[rows]), photos.at(real[rows]))
    columns = {
        "sample": pa.array([a for a, _ in pairs], pa.string()),
        "reference": pa.array([b for _, b in pairs], pa.string()),
        "role": pa.repeat(str(photos.role), len(pairs)),
        "model": pa.repeat(photos.model, len(pairs)),
        "cosine": pa.array(cosines),
        "anchored": pa.array(anchors.place(cosines.astype(float))) if anchors else pa.nulls(len(pairs)),
    }
    return pa.table(columns).cast(schema("similarities"))


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
        Score(model, prompt, measure, "product", split, group, float(np.mean(cosines)))
        for (model, prompt, split, group), cosines in collected.items()
    ]


def product_scores(samples: pa.Table, similarities: pa.Table) -> list[Score]:
    """For each model, prompt, encoder, split and product the mean over the product's samples.

    `samples` is a table `samples` or `evaluation_samples`, `similarities` theirs. Only samples drawn for `dev` and
    `test` count; those of the search chose the prompt.
    """
    columns = ["id", "reference", "model_name", "prompt_name", "purpose", "product_group"]
    judged = samples.select(columns).filter(pc.field("purpose").isin([str(split) for split in HELD_OUT]))
    cosines = similarities.select(["sample", "reference", "role", "cosine", "anchored"])
    joined = judged.join(cosines, ["id", "reference"], ["sample", "reference"], join_type="inner", use_threads=False)
    cells = ["model_name", "prompt_name", "role", "purpose", "product_group"]
    means = joined.group_by(cells, use_threads=False).aggregate([("cosine", "mean"), ("anchored", "mean")])
    ordered = means.sort_by([(name, "ascending") for name in cells]).select([*cells, "cosine_mean", "anchored_mean"])
    return [
        Score(model, prompt, role, "product", split, group, cosine, anchored=anchored)
        for model, prompt, role, split, group, cosine, anchored in zip(*ordered.to_pydict().values(), strict=True)
    ]
