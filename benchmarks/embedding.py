"""Embedding: photos a second from JPEG files to Parquet, against a plain loop; and the peak of memory as photos grow.

    python -m benchmarks.embedding [--photos 256] [--runs 3] [--source FOLDER] [--memory]

Both embed the same files by the embedded encoder and write a Parquet file. The peer is the loop that people write:
open, transformers' `CLIPImageProcessor`, `CLIPModel.get_image_features`, one photo at a time. Runs take turns, the
ratio is the median of the pairs; the largest difference of a cosine is printed. `--source` has photos of your own;
without it, JPEG files of 600 x 800 pixels are made from the sample styles. `--memory` embeds 1,000 and 8,000 photos,
each in a process of its own.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel

from benchmarks.common import timed
from fashion_pipeline.core.rows import Role
from fashion_pipeline.settings import PACKAGE
from fashion_pipeline.stages.drawing.drawing import Embedder
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.store import Store

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
ENCODER = PACKAGE / "embedded" / "encoder"
SIZE = (600, 800)


def main(photos: int, runs: int, source: Path | None) -> None:
    """Take turns, then print both speeds, their ratio, and how far the cosines are apart."""
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(source.rglob("*.jp*g"))[:photos] if source else jpeg_files(Path(folder) / "photos", photos)
        models = Models("embedded", machine=Path(folder) / "machine")
        processor = CLIPImageProcessor.from_pretrained(ENCODER)
        peer = CLIPModel.from_pretrained(ENCODER, use_safetensors=True, dtype=torch.float32).eval()
        rows: list[Any] = []
        pairs = []
        with models.encoder() as encoder:
            for run in range(runs):
                store = Store(Path(folder) / f"data{run}")

                def ours(store: Store = store) -> None:
                    embedder = Embedder(store.features, "coat", Role.ENCODER, encoder, lambda text: None)
                    index = embedder.embed(map(str, range(len(files))), lambda id_: str(files[int(id_)]))
                    rows[:1] = [index.rows([str(i) for i in range(len(files))])]

                def theirs(run: int = run) -> None:
                    rows[1:] = [_plain(peer, processor, files, Path(folder) / f"plain{run}.parquet")]

                pairs.append((timed(ours), timed(theirs)))
    ours_s, theirs_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    apart = float(np.abs(1 - np.einsum("nd,nd->n", rows[0], rows[1])).max())
    print(
        f"{len(files)} JPEG files to Parquet: ours {len(files) / ours_s:.1f} photos/s, plain loop "
        f"{len(files) / theirs_s:.1f}, ratio {ratio:.2f} (median of {runs} pairs); cosines to the loop's embeddings at "
        f"least {1 - apart:.6f}"
    )


def memory() -> None:
    """Peak memory of embedding 1,000 and 8,000 photos."""
    with tempfile.TemporaryDirectory() as folder:
        few = jpeg_files(Path(folder) / "photos", 64)
        for photos in (1_000, 8_000):
            told = subprocess.run(
                [sys.executable, "-m", "benchmarks.embedding", "--peak", str(few[0].parent), "--photos", str(photos)],
                check=True,
                capture_output=True,
                text=True,
            )
            print(f"{photos} photos: peak {told.stdout.strip()} MiB", flush=True)


def peak(folder: Path, photos: int) -> None:
    """Embed the files of a folder again and again, so many in all, and print the peak of memory in MiB."""
    files = sorted(folder.glob("*.jpg"))
    with tempfile.TemporaryDirectory() as data:
        models, store = Models("embedded", machine=Path(data) / "machine"), Store(Path(data) / "root")
        with models.encoder() as encoder:
            embedder = Embedder(store.features, "coat", Role.ENCODER, encoder, lambda text: None)
            embedder.embed(map(str, range(photos)), lambda id_: str(files[int(id_) % len(files)]))
    print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def jpeg_files(folder: Path, count: int) -> list[Path]:
    """JPEG files as large as catalog photos, from the sample styles."""
    folder.mkdir(parents=True)
    samples = sorted(SAMPLES.rglob("*.png"))
    for number in range(count):
        with Image.open(samples[number % len(samples)]) as image:
            large = image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
            large.save(folder / f"{number}.jpg", quality=90)
    return sorted(folder.glob("*.jpg"))


def _plain(model: Any, processor: Any, files: Sequence[Path], output: Path) -> Any:
    """One photo at a time, as the documentation shows it."""
    rows = []
    with torch.inference_mode():
        for file in files:
            with Image.open(file) as image:
                pixels = processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]
            found = model.get_image_features(pixel_values=pixels)
            found = found if isinstance(found, torch.Tensor) else found.pooler_output
            rows.append(torch.nn.functional.normalize(found, dim=1)[0].numpy())
    pq.write_table(pa.table({"id": [str(file) for file in files], "embedding": [list(row) for row in rows]}), output)
    return np.stack(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        peak(given.peak, given.photos)
    elif given.memory:
        memory()
    else:
        main(given.photos, given.runs, given.source)
