"""What photos are captioned with: the format that the search found, filled with each photo's own attributes."""

from typing import Any

from fashion_pipeline.core.features.attributes import of_photo
from fashion_pipeline.core.prompts.strategies import FORMATS, write
from fashion_pipeline.core.training.curation import captions
from fashion_pipeline.stages.features import attributes_believed
from fashion_pipeline.stages.models import Models
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

DEFAULT_FORMAT = "all_attributes"
"""Format that writes the captions of a style whose prompts were never searched."""


def caption_format(searched: Record | None) -> str:
    """The format that did best in a search among those that name attributes, or the default one.

    The plain prompt is no format: captions that are all alike invite learning the photos by heart.
    """
    ranked = [str(row["strategy"]) for row in searched.table("leaderboard").to_pylist()] if searched else []
    return next((name for name in ranked if name in FORMATS and name != "plain"), DEFAULT_FORMAT)


def photo_captions(store: Store, models: Models, features: Record, strategy: str) -> dict[str, tuple[str, ...]]:
    """Photo → its captions, by the strategy from the photo's own attributes, if these may be believed."""
    subject, vocabulary = store.sources.subject(features.style), models.vocabulary()
    fits = models.prompt_fits()
    plain = write("plain", subject, [], fits).prompt
    answers: dict[str, list[dict[str, Any]]] = {}
    for row in features.table("attributes").to_pylist() if attributes_believed(features) else ():
        answers.setdefault(row["id"], []).append(row)
    return {
        photo.id: captions(
            photo.caption if photo.caption and fits(photo.caption) else None,
            write(strategy, subject, of_photo(answers.get(photo.id, ()), vocabulary), fits).prompt,
            plain,
        )
        for photo in store.photos(store.records.input(features, "catalog"))
    }
