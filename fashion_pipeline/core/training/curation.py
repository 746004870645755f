"""Which photos and samples the model is trained on, with which captions, and why."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from fashion_pipeline.core.prompts.planning import photos_of
from fashion_pipeline.core.rows import Pair, Photo, Split

VALIDATION = 16
"""Most products that weights are chosen by."""
LEAST_VALIDATION = 4
"""With fewer the choice would be chance: then none is held back."""
_VALIDATION_SHARE = 1 / 6


def validation_photos(photos: Sequence[Photo]) -> list[Photo]:
    """Search photos that are never trained on, one a product, by which a training's best weights are chosen.

    They are not taken from `dev`, because the verdict rests on that. A sixth of the products, 4 to 16; else none.
    """
    products = photos_of(photos, Split.SEARCH)
    count = min(VALIDATION, int(len(products) * _VALIDATION_SHARE))
    return products[-count:] if count >= LEAST_VALIDATION else []  # the search draws for those at the other end


@dataclass(frozen=True, slots=True)
class Item:
    """A photo or sample that could be trained on."""

    id: str
    origin: str
    """reference or sample"""
    path: str
    captions: tuple[str, ...]
    score: float
    """Cosine to the style's search photos (a photo: to those of other products; a sample: to its own photo)."""


def curate(
    references: Sequence[Item], samples: Sequence[Item], *, keep: float, sample_share: float, threshold: float
) -> list[Pair]:
    """Rows of table `training_pairs`: the most typical photos, the samples that pass for real ones, a random control.

    `keep` (0 to 1] is the share of photos kept, the least typical going first. Samples need a score of at least
    `threshold` and make up at most `sample_share` of the photos kept. The control is as large as the curated set and
    drawn from the same photos and samples by hash, whatever their score.
    """
    chosen_references = _best(references, max(1, round(keep * len(references))))
    passing = [sample for sample in samples if sample.score >= threshold]
    chosen_samples = _best(passing, int(sample_share * len(chosen_references)))
    reasons = {
        **{
            item.id: f"among the {len(chosen_references)} most typical of {len(references)} photos"
            for item in chosen_references
        },
        **{item.id: f"as close to its photo as a real one of the style ({threshold:.3f})" for item in chosen_samples},
    }
    control = [
        *_drawn(references, len(chosen_references)),
        *_drawn(samples, len(chosen_samples)),
    ]
    kept = [row for item in (*chosen_references, *chosen_samples) for row in _rows(item, True, reasons[item.id])]
    return kept + [row for item in control for row in _rows(item, False, "drawn at random")]


def captions(own: str | None, formatted: str, plain: str) -> tuple[str, ...]:
    """The captions of one image: the hand-written one if there is one, else the winning format; and the plain prompt.

    Two captions an image let the style come from the plain prompt while the attributes stay steerable.
    """
    return tuple(dict.fromkeys((own or formatted, plain)))


def _best(items: Sequence[Item], count: int) -> list[Item]:
    return sorted(items, key=lambda item: (-item.score, item.id))[:count]


def _drawn(items: Sequence[Item], count: int) -> list[Item]:
    return sorted(items, key=lambda item: hashlib.sha256(f"control:{item.id}".encode()).hexdigest())[:count]


def _rows(item: Item, kept: bool, why: str) -> list[Pair]:
    return [Pair(item.id, item.origin, item.path, caption, kept, item.score, why) for caption in item.captions]
