"""Which shape each training image gets: cropped, padded, or one of a few shapes of equal area."""

import math
from collections.abc import Sequence

from PIL import Image, ImageOps

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.intake.photos import padded

Size = tuple[int, int]
_LEAST_AREA = 0.75
"""Of the square, that a bucket may have."""


def shaped(image: Image.Image, recipe: Recipe, side: int, unit: int) -> Image.Image:
    """An RGB image at the shape that it is trained at; a square of `side` pixels unless the recipe has buckets."""
    if recipe.fit == "pad":
        return padded(image).resize((side, side), Image.Resampling.LANCZOS)
    size = bucket_of(image.size, buckets(side, unit)) if recipe.fit == "buckets" else (side, side)
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def buckets(side: int, unit: int) -> list[Size]:
    """(width, height) in multiples of `unit`, of at most the area of the square, from 1 : 2 to 2 : 1.

    Aspect-ratio bucketing as NovelAI described it (2022).
    """
    tallest = [(width, min(2 * width, side * side // width) // unit * unit) for width in range(unit, side + 1, unit)]
    upright = [(width, height) for width, height in tallest if width * height >= _LEAST_AREA * side * side]
    return list(dict.fromkeys([*upright, *((height, width) for width, height in upright)]))


def bucket_of(size: Size, sizes: Sequence[Size]) -> Size:
    """The bucket whose proportions are nearest to those of an image."""
    return min(sizes, key=lambda bucket: abs(math.log(bucket[0] / bucket[1] * size[1] / size[0])))
