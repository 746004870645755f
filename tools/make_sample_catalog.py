"""Write the sample catalog that ships in data/samples: four styles of Fashion-MNIST, 160 photos each.

The choice is fixed by a seed, no two photos are near-duplicates, and each style has 96 photos in the split `search`,
48 in `dev` and 16 in `test`. Needs Debian's package dataset-fashion-mnist, or its four files in a folder.
"""

import argparse
import gzip
import hashlib
import io
import shutil
from collections import Counter
from pathlib import Path

from PIL import Image

from fashion_pipeline.core.catalog.fingerprints import Fingerprints, near_duplicates
from fashion_pipeline.core.catalog.listing import Entry, SourceSpec
from fashion_pipeline.core.catalog.splits import split_of
from fashion_pipeline.intake.photos import content_id, open_photo
from fashion_pipeline.intake.sources import read_source

STYLES = ("bag", "coat", "dress", "sneaker")
QUOTAS = {"search": 96, "dev": 48, "test": 16}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
COPYRIGHT = Path("/usr/share/doc/dataset-fashion-mnist/copyright")
README = """# Sample catalog

640 photos of four styles (bag, coat, dress, sneaker), 160 each: a choice from Fashion-MNIST by Zalando SE
(https://github.com/zalandoresearch/fashion-mnist), under the MIT licence in `LICENSE`.

Changed against the original: dark on a white ground instead of bright on black, enlarged from 28 x 28 to 64 x 64 pixels
(Lanczos), stored as greyscale PNG. No two photos are near-duplicates. Each style has 96 photos in the split `search`,
48 in `dev` and 16 in `test`. Written by `python -m tools.make_sample_catalog`, which gives the
same files each time (with the same version of Pillow: a photo's split follows from its bytes).
"""


def main() -> None:
    """Read the arguments and write the catalog."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=DEBIAN, help="folder with the IDX files")
    parser.add_argument("--copyright", type=Path, default=COPYRIGHT, help="Debian's copyright file of the data set")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "data" / "samples")
    parser.add_argument("--seed", default="sample catalog 1", help="any text; another one gives another choice")
    args = parser.parse_args()
    make(args.source, args.copyright, args.out, args.seed)


def make(source: Path, copyright_file: Path, out: Path, seed: str) -> None:
    """Replace the style folders, README.md and LICENSE in `out`."""
    entries = read_source(SourceSpec(str(source))).entries
    chosen = choose({style: in_random_order(entries, style, seed) for style in STYLES})
    for style, photos in chosen.items():
        folder = out / style
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number, photo in enumerate(photos, start=1):
            (folder / f"{number:04}.png").write_bytes(photo)
        print(f"{style}: {len(photos)} photos, {sum(map(len, photos)) / 1000:.0f} kB")
    (out / "README.md").write_text(README, encoding="utf-8")
    (out / "LICENSE").write_text(licence(copyright_file), encoding="utf-8")


def in_random_order(entries: list[Entry], style: str, seed: str) -> list[str]:
    """The locations of a style's photos, in an order that depends on the seed and the item's name only."""
    items = [entry.location for entry in entries if entry.style == style]
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}:{Path(item).name}".encode()).digest())


def choose(candidates: dict[str, list[str]]) -> dict[str, list[bytes]]:
    """PNG files that fill the quotas of each style, none a near-duplicate of another of any style."""
    count = 2 * sum(QUOTAS.values())
    drawn = [(style, to_png(item)) for style, items in candidates.items() for item in items[:count]]
    images = [Image.open(io.BytesIO(photo)).convert("RGB") for _, photo in drawn]
    doubles = {later for _, later, _ in near_duplicates(Fingerprints.of(images))}
    chosen: dict[str, list[bytes]] = {style: [] for style in candidates}
    filled: Counter[tuple[str, str]] = Counter()
    for position, (style, photo) in enumerate(drawn):
        split = split_of(content_id(photo))
        if position not in doubles and filled[style, split] < QUOTAS[split]:
            filled[style, split] += 1
            chosen[style].append(photo)
    if any(filled[style, split] < quota for style in candidates for split, quota in QUOTAS.items()):
        raise SystemExit(f"too few candidates to fill {QUOTAS}: {dict(filled)}; draw more")
    return chosen


def to_png(location: str) -> bytes:
    """The photo as a greyscale PNG file. Its bytes depend on the version of Pillow, and with them its split."""
    buffer = io.BytesIO()
    open_photo(location).convert("L").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def licence(copyright_file: Path) -> str:
    """The MIT (Expat) licence text from a Debian copyright file."""
    raw = copyright_file.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    body = text[text.index(" Permission is hereby granted") :].splitlines()
    paragraphs = "\n".join(line.strip() if line.strip() != "." else "" for line in body).strip()
    return f"MIT License (Expat)\n\nCopyright (c) 2017 Zalando SE, https://tech.zalando.com\n\n{paragraphs}\n"


if __name__ == "__main__":
    main()
