"""Photos a second with one and two workers of a Ray cluster, against this process alone: a processor each.

    python -m benchmarks.scaling.workers [--photos 384] [--runs 3]

The photos are JPEG files of 600 x 800 pixels, embedded by the embedded encoder. The baseline, like each worker, may use
one processor and one thread; the process that hands out the work has no processor of its own. Workers hold the model
before the clock starts. Runs take turns; told are medians.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import timed
from benchmarks.embedding import SIZE, jpeg_files
from benchmarks.scaling.photos import ONE_THREAD
from fashion_pipeline.stages.drawing import on_ray
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.drawing.on_ray import OnRay
from fashion_pipeline.stages.drawing.workers import Picture, embed_here

PIECE = 32


class Pinned(on_ray.Worker):
    """A worker that may use one processor: that of its place among the workers, which a file each stands for."""

    def __init__(self, models: Models) -> None:
        assert models.machine is not None
        processors = sorted(os.sched_getaffinity(0))
        for place in itertools.count():
            with suppress(FileExistsError):
                models.machine.with_name(f"worker-{place}").touch(exist_ok=False)
                break
        os.sched_setaffinity(0, {processors[place % len(processors)]})
        super().__init__(models)


def main(photos: int, runs: int) -> None:
    """Take turns, then print photos a second and how far two workers are from twice as many."""
    import ray

    processors = sorted(os.sched_getaffinity(0))[:2]
    with tempfile.TemporaryDirectory() as folder:
        machine = Path(folder) / "machine"
        files = jpeg_files(Path(folder) / "photos", photos)
        pictures = [Picture(file.name, str(file), 1024, photo=False) for file in files]
        pieces = [pictures[start : start + PIECE] for start in range(0, photos, PIECE)]
        models = Models("embedded", machine=machine)
        models.pick()  # measured once, before anybody is pinned
        ray.init(num_cpus=3, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
        on_ray.Worker = Pinned  # type: ignore[misc]
        clusters = {workers: OnRay("embedded", machine=machine, workers=workers) for workers in (1, 2)}
        for cluster in clusters.values():
            list(cluster.embed("encoder", pieces[:4]))
        rows: dict[int, Any] = {}
        seconds: dict[int, list[float]] = {0: [], 1: [], 2: []}
        with models.encoder() as encoder:
            for _ in range(runs):
                os.sched_setaffinity(0, processors[:1])
                seconds[0].append(timed(lambda: rows.update({0: _matrix(embed_here(encoder, pieces))})))
                os.sched_setaffinity(0, processors)
                for workers, cluster in clusters.items():
                    taken = timed(
                        lambda n=workers, c=cluster: rows.update({n: _matrix(c.embed("encoder", pieces))})  # type: ignore[misc]
                    )
                    seconds[workers].append(taken)
        ray.shutdown()
    speed = {workers: photos / statistics.median(each) for workers, each in seconds.items()}
    apart = max(float(np.abs(rows[0] - rows[workers]).max()) for workers in (1, 2))
    size = " x ".join(map(str, SIZE))
    print(
        f"{photos} JPEG files of {size}: this process {speed[0]:.1f} photos/s, 1 worker {speed[1]:.1f}, 2 workers "
        f"{speed[2]:.1f}; 2 against 1: {speed[2] / speed[1]:.2f}, 1 against this process: {speed[1] / speed[0]:.2f} "
        f"(medians of {runs}); largest difference of a value {apart:.0e}"
    )


def _matrix(found: Iterable[tuple[int, NDArray[np.float32]]]) -> NDArray[np.float32]:
    """The rows of all pieces, in order."""
    return np.concatenate([rows for _, rows in sorted(found, key=lambda each: each[0])])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=384)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pinned", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.pinned:
        main(given.photos, given.runs)
    else:
        again = [sys.executable, "-m", "benchmarks.scaling.workers", *sys.argv[1:], "--pinned"]
        sys.exit(subprocess.run(again, env=os.environ | ONE_THREAD).returncode)
