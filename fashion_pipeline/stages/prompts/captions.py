"""What photos are captioned with: the format that the search found, filled with each photo's own attributes."""

from collections.abc import Iterable

from fashion_pipeline.core.prompts.formats import FORMATS, Candidate, write
from fashion_pipeline.core.rows import Photo
from fashion_pipeline.core.training.curation import captions
from fashion_pipeline.core.training.tags import shortened
from fashion_pipeline.stages.catalog.features import photo_attributes
from fashion_pipeline.stages.drawing.base import prompt_fits
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

DEFAULT_FORMAT = "all_attributes"
"""Format that writes the captions of a style whose prompts were never searched."""


def caption_format(searched: Record | None) -> str:
    """The format that did best in a search among those that name attributes, or the default one.

    The plain prompt is no format: captions that are all alike invite learning the photos by heart.
    """
    ranked = [str(row["format"]) for row in searched.table("formats").to_pylist()] if searched else []
    return next((name for name in ranked if name in FORMATS and name != "plain"), DEFAULT_FORMAT)


def own_prompts(store: Store, models: Models, features: Record, strategy: str) -> dict[str, Candidate]:
    """Photo → the prompt that a format writes from its own attributes, if these may be believed."""
    subject, fits = store.sources.subject(features.style), prompt_fits(models)
    attributes = photo_attributes(store, models, features)
    return {
        photo.id: write(strategy, subject, attributes.get(photo.id, ()), fits)
        for photo in store.photos(store.records.input(features, "catalog"))
    }


def photo_captions(store: Store, models: Models, features: Record, strategy: str) -> dict[str, tuple[str, ...]]:
    """Photo → its captions: as much of its own one as fits, or the format's where it has none; and the plain prompt."""
    fits = prompt_fits(models)
    plain = write("plain", store.sources.subject(features.style), [], fits).prompt
    written = own_prompts(store, models, features, strategy)
    return {
        photo.id: captions(shortened(photo.caption or "", fits) or None, written[photo.id].prompt, plain)
        for photo in store.photos(store.records.input(features, "catalog"))
    }


def too_long(models: Models, photos: Iterable[Photo]) -> list[Photo]:
    """The photos whose own captions the text encoder does not read whole."""
    fits = prompt_fits(models)
    return [photo for photo in photos if photo.caption and not fits(photo.caption)]
