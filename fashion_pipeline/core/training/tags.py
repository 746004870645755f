"""Variants of captions: the parts between commas left out at random, or in another order."""

import re
from collections.abc import Callable
from random import Random

COMMAS = ",，、"
_OPEN, _CLOSED = "([{", ")]}"


def variants(caption: str, count: int, *, dropout: float, shuffle: bool, seed: int) -> list[str]:
    """`count` variants of a caption, which depend on it, on the seed and on nothing else; the first part stays first.

    Each part but the first is left out with probability `dropout`. A caption of one part has itself as only variant.
    """
    first, *rest = parts_of(caption)
    if not rest or not (dropout or shuffle):
        return [caption]
    random = Random(f"{seed}\0{caption}")
    return [_variant(first, rest, dropout, shuffle, random) for _ in range(count)]


def parts_of(caption: str) -> list[str]:
    """The parts of a caption between commas, also full-width ones, but for those inside brackets: `(red, blue:1.3)`."""
    parts, depth = [""], 0
    for character in caption:
        depth = max(0, depth + (character in _OPEN) - (character in _CLOSED))
        if character in COMMAS and not depth:
            parts.append("")
        else:
            parts[-1] += character
    if depth:  # a bracket that nobody closed
        parts = re.split(f"[{COMMAS}]", caption)
    return [part.strip() for part in parts]


def shortened(caption: str, fits: Callable[[str], bool]) -> str:
    """As much of a caption as fits: whole parts between commas, or else whole words; empty where no word does."""
    if fits(caption):
        return caption
    parts = parts_of(caption)
    for count in range(len(parts), 0, -1):
        if fits(kept := ", ".join(parts[:count])):
            return kept
    words = parts[0].split()
    return next((kept for count in range(len(words), 0, -1) if fits(kept := " ".join(words[:count]))), "")


def _variant(first: str, rest: list[str], dropout: float, shuffle: bool, random: Random) -> str:
    kept = [part for part in rest if random.random() >= dropout]
    if shuffle:
        random.shuffle(kept)
    return ", ".join([first, *kept])
