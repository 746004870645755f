"""Whether a run can lead to a verdict, said before it costs anything."""

import math

from fashion_pipeline.core.catalog.splits import SHARES
from fashion_pipeline.core.evaluation.verdicts import MIN_PRODUCTS

PHOTOS_NEEDED = math.ceil(MIN_PRODUCTS / SHARES["dev"] / 5) * 5
"""Photos of a style, each of another product, of which about MIN_PRODUCTS fall into dev."""


def dev_products(photos: int) -> int:
    """How many products of dev so many photos bring, where each shows another product."""
    return round(SHARES["dev"] * photos)


def too_few_photos(photos: int) -> str | None:
    """What to say of a style whose photos cannot give a verdict; None where they can."""
    held_out = dev_products(photos)
    if held_out >= MIN_PRODUCTS:
        return None
    return (
        f"about {held_out} products held out for the verdict, which needs {MIN_PRODUCTS} "
        f"(about {PHOTOS_NEEDED} photos in all): nothing will be published"
    )


def too_few_products(products: int) -> str | None:
    """What to say of a limit on products that rules a verdict out; None where it does not."""
    if products >= MIN_PRODUCTS:
        return None
    return f"{products} products cannot give a verdict, which needs {MIN_PRODUCTS}: nothing will be published"
