"""Variants of captions: the parts between commas left out at random, or in another order."""

from random import Random


def variants(caption: str, count: int, *, dropout: float, shuffle: bool, seed: int) -> list[str]:
    """`count` variants of a caption, which depend on it, on the seed and on nothing else; the first part stays first.

    Each part but the first is left out with probability `dropout`. A caption of one part has itself as only variant.
    """
    first, *rest = [part.strip() for part in caption.split(",")]
    if not rest or not (dropout or shuffle):
        return [caption]
    random = Random(f"{seed}\0{caption}")
    return [_variant(first, rest, dropout, shuffle, random) for _ in range(count)]


def _variant(first: str, rest: list[str], dropout: float, shuffle: bool, random: Random) -> str:
    kept = [part for part in rest if random.random() >= dropout]
    if shuffle:
        random.shuffle(kept)
    return ", ".join([first, *kept])
