"""Time and memory against photos: Fashion-MNIST through catalog, features and attributes.

    python -m benchmarks.scaling.photos [--photos 1000 8000 70000] [--source FOLDER] [--output FILE]

`--source` is a folder with the IDX files of Fashion-MNIST, such as that of Debian's package dataset-fashion-mnist; of a
smaller number the first photos are taken; every size has all ten styles. Each size runs in a process of its own, with
one thread, from an empty data root; photos are decoded by as many processes as there are processors. Told are seconds
and photos a second by stage, the peak of memory, the exponent of time against photos, and what a second run costs that
finds nothing new, and one that finds a single new photo.
"""

import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import write_json
from fashion_pipeline.core.catalog.listing import SourceSpec, style_slug
from fashion_pipeline.intake.idx import read_idx
from fashion_pipeline.intake.sources import FASHION_MNIST, read_source
from fashion_pipeline.stages.catalog.catalog import catalogue
from fashion_pipeline.stages.catalog.features import describe
from fashion_pipeline.stages.catalog.sources import take_in
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.store import Store

SOURCE = Path("/usr/share/datasets/fashion-mnist")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main(sizes: Sequence[int], source: Path, output: Path | None) -> None:
    """Measure each size, then print the table and the exponents."""
    told = []
    for photos in sizes:
        with tempfile.TemporaryDirectory() as folder:
            plant(Path(folder), photos, source)
            command = [sys.executable, "-m", "benchmarks.scaling.photos", "--one", folder]
            child = subprocess.run(command, env=os.environ | ONE_THREAD, check=True, stdout=subprocess.PIPE, text=True)
        told.append({"photos": photos, **json.loads(child.stdout.splitlines()[-1])})
        print(_line(told[-1]), flush=True)
    if output:
        write_json(output, {"sizes": told})
    for stage in ("catalog", "features") if len(told) > 1 else ():
        counts, seconds = [each["photos"] for each in told], [each[stage] for each in told]
        print(f"{stage}: time grows with photos to the power of {exponent(counts, seconds):.2f}")


def plant(root: Path, photos: int, source: Path) -> None:
    """IDX files of the first photos, and of the same but for one."""
    images, labels = (
        np.concatenate([read_idx(source / f"{part}-{kind}-ubyte.gz") for part in ("train", "t10k")])[:photos]
        for kind in ("images-idx3", "labels-idx1")
    )
    _write(root / "photos", images, labels)
    images[0] = 255 - images[0]
    _write(root / "one new", images, labels)


def exponent(counts: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of time against counts, both as logarithms, by least squares."""
    return float(np.polyfit(np.log(counts), np.log(seconds), 1)[0])


def one(root: Path) -> dict[str, float]:
    """Take what was planted in and describe it; then again with nothing new, and with one photo that is new."""
    store, models = Store(root / "data"), Models("embedded", machine=root / "machine")
    spec = SourceSpec(str(root / "photos"))
    styles = take_in(store, spec, read_source(spec))
    found: dict[str, float] = {}
    for stage, work in (
        ("catalog", lambda style: catalogue(store, style)),
        ("features", lambda style: describe(store, models, style, lambda text: None)),
    ):
        found[stage] = _all(styles, work)
        found[f"{stage} peak MiB"] = _peak()
        found[f"{stage} again"] = _all(styles, work)
    for file in (root / "one new").iterdir():
        file.replace(root / "photos" / file.name)
    first = read_idx(root / "photos" / "train-labels-idx1-ubyte")[0]
    found["one new"] = _all([style_slug(FASHION_MNIST[first])], lambda style: catalogue(store, style))
    return found


def _write(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    folder.mkdir()
    for name, values in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        (folder / f"train-{name}-ubyte").write_bytes(header + values.tobytes())


def _all(styles: Sequence[str], work: Callable[[str], object]) -> float:
    began = time.perf_counter()
    for number, style in enumerate(styles, start=1):
        work(style)
        print(f"{number} of {len(styles)} styles, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return time.perf_counter() - began


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _line(told: dict[str, float]) -> str:
    photos = told["photos"]
    parts = [
        f"{stage} {told[stage]:.0f} s ({photos / told[stage]:.0f} a second, again {told[f'{stage} again']:.0f} s, "
        f"peak {told[f'{stage} peak MiB']:.0f} MiB)"
        for stage in ("catalog", "features")
    ]
    return f"{photos:.0f} photos: {'; '.join(parts)}; one new photo {told['one new']:.1f} s"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="+", default=[1_000, 8_000, 70_000])
    parser.add_argument("--source", type=Path, default=SOURCE)
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one)))
    else:
        main(given.photos, given.source, given.output)
