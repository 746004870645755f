"""Decode the product photos once, find out which are held out, and write the cache that every training reads."""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from fashion_pipeline.core.catalog.fingerprints import Fingerprints, fingerprint
from fashion_pipeline.core.catalog.splits import assign_splits, held_out
from tools.embedded_models.photos import ATTRIBUTES, IMAGE_SIZE, LARGE_SIZE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder with styles.csv and images/{id}.jpg")
    parser.add_argument("--cache", type=Path, required=True, help="the .npz file to write")
    args = parser.parse_args()
    prepare(args.photos, args.cache)


def prepare(folder: Path, cache: Path) -> None:
    """Write ids, attributes, splits and pixels at two sizes of all photos listed in `folder`."""
    with (folder / "styles.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    decoded = [decode(folder / "images" / f"{row['id']}.jpg") for row in rows]
    ids = [row["id"] for row in rows]
    split = splits_of(ids, Fingerprints.stack([prints for _, _, prints in decoded]))
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_suffix(".partial.npz")
    np.savez(
        partial,
        ids=np.array(ids),
        split=split,
        small=np.stack([small for small, _, _ in decoded]),
        large=np.stack([large for _, large, _ in decoded]),
        **{name: np.array([row[name] for row in rows]) for name in ATTRIBUTES},
    )
    partial.replace(cache)
    print({str(name): int(count) for name, count in zip(*np.unique(split, return_counts=True), strict=True)})


def decode(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[int, np.ndarray]]:
    """One photo at 64 and at 80 pixels, shorter side fitted and centre kept, and its fingerprint."""
    with Image.open(path) as stored:
        image = stored.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    small, large = (
        np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box)) for size in (IMAGE_SIZE, LARGE_SIZE)
    )
    return small, large, fingerprint(image)


def splits_of(ids: list[str], prints: Fingerprints) -> np.ndarray:
    """(n,) "search", "dev" or "test" as the catalog has it, or "excluded": near a test photo, or between two splits."""
    assignment = assign_splits(ids, prints)
    split = np.array(assignment.splits, dtype="U8")
    bridging = np.array([pair is not None for pair in assignment.bridges])
    split[bridging | (held_out(ids, prints) & (split != "test"))] = "excluded"
    return split


if __name__ == "__main__":
    main()
