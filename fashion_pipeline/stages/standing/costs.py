"""What a run costs at most: images to draw, steps to train, room on the disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fashion_pipeline.core.catalog.splits import SHARES
from fashion_pipeline.core.evaluation.best_of import COUNTS
from fashion_pipeline.stages.drawing.base import denoiser_bytes
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.evaluation.evaluation import EXTRA_SHARE

PROMPTS = 2
"""The plain and the best one."""

_JUDGED: tuple[Literal["dev", "test"], ...] = ("dev", "test")

BYTES_OF_PIXEL = 1.2
"""Of a PNG of a photo, and of its embeddings."""


@dataclass(frozen=True)
class Cost:
    """At most; what exists is not made again."""

    images: int
    steps: int
    bytes: int


def cost_of(
    models: Models,
    photos: int,
    *,
    search: Mapping[str, Any] | None,
    training: Mapping[str, Any] | None,
    products: int,
    contestants: int,
) -> Cost:
    """What a style of so many photos costs: `search` and `training` are the configuration of these steps, None without.

    `products` is the most of dev, and of test, on which `contestants` models are compared. Raises ValueError.
    """
    images = 0
    if search is not None:
        images += search["budget"] + PROMPTS * sum(_held_out(photos, search["held_out_products"]))
    steps, weights = 0, 0
    if training is not None:
        dev, test = _held_out(photos, products)
        extra = dev // EXTRA_SHARE
        images += contestants * (PROMPTS * (dev + test) + extra * (COUNTS[-1] - 1) + extra)
        recipe = models.profile.training.changed(dict(training))
        steps, weights = recipe.steps, denoiser_bytes(models.profile.generator)
    side = models.profile.generation.image_size
    return Cost(images, steps, int(images * side * side * BYTES_OF_PIXEL) + 2 * weights)


def _held_out(photos: int, most: int) -> tuple[int, int]:
    """Products of dev and of test, as far as their shares go."""
    dev, test = (min(most, round(SHARES[split] * photos)) for split in _JUDGED)
    return dev, test
