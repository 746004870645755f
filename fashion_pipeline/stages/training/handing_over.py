"""Curated images and captions as a folder that other trainers read, with our knobs in their words."""

import json
from collections.abc import Callable
from pathlib import Path

from fashion_pipeline.core.rows import Pair
from fashion_pipeline.core.training.other_trainers import IMAGES, TRAINERS
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.training.curation import training_images
from fashion_pipeline.store.store import Store

LARGEST = 1024
"""Pixels of the longer side of an exported image, unless twice the training's resolution is more: trainers make it
smaller anyway."""


def export_dataset(
    store: Store, models: Models, style: str, trainer: str, folder: Path, tell: Callable[[str], None]
) -> int:
    """Write the newest curated pairs of a style, and what a trainer needs to begin; returns how many pairs there are.

    Each pair is an image and a text file with its caption; `metadata.jsonl` has all captions, as Hugging Face's
    imagefolder reads them. A photo that is not the one that was curated any more is left out, and `tell` hears of it.
    Raises ValueError for an unknown trainer, one that does not train such a recipe, or a folder that is not empty;
    StorageError where nothing was curated yet.
    """
    from fashion_pipeline.intake.photos import PhotoError, open_photo
    from fashion_pipeline.ml.families import family_of
    from fashion_pipeline.ml.sources import find_pipeline

    if trainer not in TRAINERS:
        raise ValueError(f"trainer is {trainer!r}: choose among {', '.join(TRAINERS)}")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name a new folder")
    curation = store.records.latest("curation", style)
    pairs = [pair for pair in Pair.read(curation.table("training_pairs")) if pair.kept]
    places = training_images(store, store.records.input(curation, "catalog"), pairs)
    recipe = recipe_of_style(store, models, style)
    with models.named("generator"):
        family = family_of(find_pipeline(models.profile.generator))
    beside = TRAINERS[trainer](recipe, family.title, models.profile.generator, family.side)
    images = folder / IMAGES
    images.mkdir(parents=True)
    largest = max(LARGEST, 2 * (recipe.resolution or family.side))
    rows = []
    for number, pair in enumerate(pairs):
        try:
            image = open_photo(places[pair.id], largest, content=pair.id if pair.path else "")
        except PhotoError as error:
            tell(f"{places[pair.id]} is left out: {error}")
            continue
        name = f"{number:05d}-{pair.id[:12]}"
        image.save(images / f"{name}.png")
        (images / f"{name}.txt").write_text(pair.caption + "\n", encoding="utf-8")
        rows.append({"file_name": f"{name}.png", "text": pair.caption, "origin": str(pair.origin)})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (images / "metadata.jsonl").write_text(lines, encoding="utf-8")
    for name, content in beside.items():
        (folder / name).write_text(content, encoding="utf-8")
    return len(rows)


def recipe_of_style(store: Store, models: Models, style: str) -> Recipe:
    """The profile's recipe with the knobs that were chosen for a style."""
    chosen = store.sources.config(style).get("lora_weights", {})
    return models.profile.training.changed({n: v for n, v in chosen.items() if n in Recipe.model_fields})
