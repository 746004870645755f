"""What takes how much room on the disk, by style and by what it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fashion_pipeline.store.records import KINDS
from fashion_pipeline.store.store import Store

SHARED = "(all styles)"
"""What belongs to no style alone: samples are kept by what determines them, whoever draws them."""


@dataclass(frozen=True)
class Usage:
    """Bytes of one kind of thing of one style."""

    style: str
    what: str
    """A kind of record, or embeddings, pictures, checkpoints, caches, versions, images, dagster."""
    bytes: int


def usage(store: Store) -> list[Usage]:
    """All that takes room, the largest of each style first. A file in two places counts where it is found first."""
    seen: set[tuple[int, int]] = set()
    sizes: dict[tuple[str, str], int] = {}
    for style, what, folder in _places(store):
        sizes[style, what] = sizes.get((style, what), 0) + _bytes(folder, seen)
    rows = [Usage(style, what, size) for (style, what), size in sizes.items() if size]
    return sorted(rows, key=lambda each: (each.style, -each.bytes))


def _places(store: Store) -> Iterator[tuple[str, str, Path]]:
    """Style, what it is, and the folder; versions first, since their weights are linked into records."""
    root = store.root
    patterns = {"versions": "published/*"}
    patterns |= {kind: f"records/{kind}/style=*" for kind in KINDS}
    patterns |= {"embeddings": "embeddings/*/style=*", "pictures": "pictures/*/style=*"}
    patterns |= {"checkpoints": "work/training/*", "caches": "work/cache/*", "foreign weights": "weights/*"}
    for what, pattern in patterns.items():
        for folder in sorted(root.glob(pattern)):
            yield folder.name.removeprefix("style="), what, folder
    yield SHARED, "images", root / "images"
    yield SHARED, "dagster", root / "dagster_home"


def _bytes(folder: Path, seen: set[tuple[int, int]]) -> int:
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        status = path.lstat()
        if path.is_file() and (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    return total
