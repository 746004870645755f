"""Stage 8, equal cost: would drawing several images and keeping the best one do what training does?"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fashion_pipeline.core.evaluation.best_of import COUNTS, best_of
from fashion_pipeline.core.evaluation.verdicts import SPLIT
from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.prompts.planning import Shot
from fashion_pipeline.core.rows import Photo, Purpose, Role, Sample, Score, Split
from fashion_pipeline.store.store import Store


def plan_seeds(plain: Candidate, photos: Sequence[Photo]) -> list[Shot]:
    """The plain prompt with further seeds for some dev products, whose first seed is drawn for the verdict."""
    return [Shot(plain, photo, Purpose.SEEDS, "plain", repeat) for repeat in range(1, COUNTS[-1]) for photo in photos]


def best_of_scores(
    store: Store,
    style: str,
    samples: Sequence[Sample],
    similarities: pa.Table,
    encoders: Mapping[str, str],
    search: Sequence[Photo],
) -> list[Score]:
    """Judge similarity of the first of 1, 2 and 4 seeds that the encoder finds closest to the style's search photos.

    That is how a user would choose, who does not have the photo that the image is compared with afterwards. `encoders`
    is role → fingerprint.
    """
    judged = similarities.filter(pc.field("role") == Role.JUDGE.value)
    cosines = dict(zip(judged["sample"].to_pylist(), judged["cosine"].to_pylist(), strict=True))
    wanted = {sample.product_group for sample in samples if sample.purpose == Purpose.SEEDS}
    samples_of: dict[tuple[str, str], list[str]] = {}
    for sample in samples:
        first = sample.purpose == Split.DEV and sample.prompt_name == "plain" and sample.product_group in wanted
        if first or sample.purpose == Purpose.SEEDS:
            samples_of.setdefault((sample.model_name, sample.product_group), []).append(sample.id)
    complete = {key: ids for key, ids in samples_of.items() if len(ids) == COUNTS[-1]}
    if not complete or not search:
        return []
    photos = store.features.index(style, Role.ENCODER, encoders[Role.ENCODER]).known([photo.id for photo in search])
    drawn_index = store.sample_features.index(style, Role.ENCODER, encoders[Role.ENCODER])
    centre = photos.mean(axis=0)
    scores = []
    for (model, product), ids in complete.items():
        closeness = drawn_index.rows(ids) @ centre
        for count in COUNTS:
            kept = ids[int(np.argmax(closeness[:count]))]
            value = float(cosines[kept])
            scores.append(Score(model, "plain", best_of(count), "product", SPLIT.value, product, value))
    return scores
