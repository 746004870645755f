"""Stage 8, whether samples are copies of the photos that a model was trained on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_pipeline.core.catalog.fingerprints import Fingerprints, colours
from fashion_pipeline.core.evaluation.copies import Nearest, limit, nearest_by_colour, nearest_by_cosine
from fashion_pipeline.core.evaluation.measures import COPIED
from fashion_pipeline.core.evaluation.scores import HELD_OUT, sample_scores
from fashion_pipeline.core.prompts.planning import photos_of
from fashion_pipeline.core.rows import Photo, Role, Sample, Score
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.stages.drawing.drawing import CHUNK, Embedder, Report
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.drawing.workers import Picture, in_threads
from fashion_pipeline.stages.training.training import trained_ids
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

COLOUR = "colour"
"""The second distance: of pictures of 16 x 16 pixels."""

MOST_HELD_OUT = 512
"""Photos that were never trained on, one a product: enough for a percentile."""


@dataclass(frozen=True)
class Copies:
    """The training photo that each sample is nearest to."""

    scores: list[Score]
    """Measure `copied`."""
    rows: list[dict[str, Any]]
    """Of table `nearest`: two for each sample, by judge and by colour."""


class ColourPictures:
    """Images as 16 x 16 colours from 0 to 1."""

    fingerprint = "colour-16"
    side = 64

    def embed_images(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """n RGB images of any sizes → (n, 768)."""
        rows = [as_colours(colours(image)) for image in images]
        return np.array(rows, np.float32).reshape(len(rows), -1)


def as_colours(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(..., 16, 16, 3) bytes → (..., 768) from 0 to 1."""
    return (thumbnails.reshape(*thumbnails.shape[:-3], -1) / 255).astype(np.float32)


def trained_photos(store: Store, training: Record, photos: Sequence[Photo]) -> list[Photo]:
    """The photos among the pairs of a training; images that a model drew are none."""
    ids = trained_ids(store, training)
    return [photo for photo in photos if photo.id in ids]


def find_copies(
    store: Store,
    models: Models,
    style: str,
    photos: Sequence[Photo],
    trained: Sequence[Photo],
    recipe: Recipe,
    samples: Sequence[Sample],
    prints: Mapping[str, tuple[int, NDArray[np.uint8]]],
    report: Report,
) -> Copies:
    """Compare held-out samples, which are embedded already, with the training photos as the autoencoder has them.

    What counts as a copy follows from the held-out photos, one a product. `prints` has the fingerprint of each sample.
    """
    drawn = list(dict.fromkeys(sample.id for sample in samples if sample.purpose in HELD_OUT))
    held_out = [photo for split in HELD_OUT for photo in photos_of(photos, split)][:MOST_HELD_OUT]
    if not drawn or not trained or not held_out:
        return Copies([], [])
    with models.autoencoder(recipe) as autoencoder, models.judge() as judge:
        embedders = {
            Role.JUDGE.value: Embedder(store.features, style, Role.JUDGE, judge, report),
            COLOUR: Embedder(store.features, style, COLOUR, ColourPictures(), report),
        }
        passed = {f"{photo.id}:{autoencoder.fingerprint}": photo for photo in [*trained, *held_out]}
        missing = [name for name in passed if any(name not in each.index for each in embedders.values())]
        if missing:
            report(f"judge: {len(missing)} photos as the autoencoder has them")
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            pictures = [embedders[Role.JUDGE].picture(passed[name].id, passed[name].path) for name in chunk]
            images = list(autoencoder.pass_through(in_threads(Picture.open, pictures)))
            for embedder in embedders.values():
                embedder.add(chunk, images)
        names = [[f"{photo.id}:{autoencoder.fingerprint}" for photo in each] for each in (trained, held_out)]
        fingerprint = judge.fingerprint
    made = {
        Role.JUDGE.value: store.sample_features.index(style, Role.JUDGE, fingerprint).rows(drawn),
        COLOUR: as_colours(Fingerprints.stack([prints[id_] for id_ in drawn]).thumbnails),
    }
    rows = []
    for by, embedder in embedders.items():
        trained_rows, unseen = (embedder.index.rows(each) for each in names)
        nearest = nearest_by_colour if by == COLOUR else nearest_by_cosine
        rows += _rows(drawn, trained, by, nearest(made[by], trained_rows), limit(nearest(unseen, trained_rows)))
    copied = {row["sample"]: 0.0 for row in rows} | {row["sample"]: 1.0 for row in rows if row["copied"]}
    return Copies(sample_scores(samples, copied, COPIED.name), rows)


def _rows(
    drawn: Sequence[str], trained: Sequence[Photo], by: str, found: Nearest, at_least: float
) -> list[dict[str, Any]]:
    return [
        {
            "sample": sample,
            "photo": trained[int(place)].id,
            "by": by,
            "distance": float(distance),
            "limit": at_least,
            "copied": bool(distance < at_least),
        }
        for sample, place, distance in zip(drawn, found.places, found.distances, strict=True)
    ]
