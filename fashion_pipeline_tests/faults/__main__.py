"""Injects faults, restarts, and compares with an undisturbed run.

    python -m fashion_pipeline_tests.faults [--seed 0] [--single 180] [--chain 20] [--folder FOLDER]

Single stages: a process that is killed at any change of a file, a full disk, a read-only one, files that cannot be
read, a clock that is set back, damaged files, photos that change. The whole chain: that, and what happens to runs,
commands and their database. What was done is noted in the folder, and is not done again by the next call.

After each, the stages run once more without a fault. Tables by content and weights by hash must be those of the
undisturbed run; no table may be torn, no published version lost, no slot held and no run be left as started.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fashion_pipeline_tests.faults import planting

SAMPLES = Path(__file__).parents[2] / "data" / "samples"
QUIETLY = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def main(argv: list[str]) -> int:
    """See the module; returns how many injections left something wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--single", type=int, default=180, help="injections at single stages")
    parser.add_argument("--chain", type=int, default=20, help="injections over the whole chain")
    parser.add_argument("--folder", type=Path, help="where to work and note what was done; default: a temporary one")
    parser.add_argument("--only", type=int, action="append", help="do these numbers, whatever was noted")
    given = parser.parse_args(argv)
    if not planting.preloaded():
        os.environ.update(QUIETLY | {"LD_PRELOAD": str(planting.library())})
        os.execv(sys.executable, [sys.executable, "-m", "fashion_pipeline_tests.faults", *argv])
    os.environ.pop("LD_PRELOAD")  # what this process starts is not disturbed unless it is to be
    folder = given.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    profile = _profile(folder)
    wrong = 0
    if given.single:
        from fashion_pipeline_tests.faults.stages import Bench

        bench = Bench(folder / "stages", SAMPLES, profile)
        bench.prepare()
        wrong += _all(folder / "single.jsonl", given.single, given.only, lambda at: bench.inject(at, given.seed))
    if given.chain:
        from fashion_pipeline_tests.faults.chain import Runs

        runs = Runs(folder / "chain", SAMPLES, profile)
        runs.prepare()
        wrong += _all(folder / "chain.jsonl", given.chain, given.only, lambda at: runs.inject(at, given.seed))
    print(f"{wrong} of {given.single + given.chain} injections left something wrong")
    return min(wrong, 100)


def _all(notes: Path, count: int, only: list[int] | None, inject: Callable[[int], Any]) -> int:
    """The injections that were not noted yet; returns how many of all left something wrong."""
    done = {row["number"]: row for row in _noted(notes)}
    for number in only or range(count):
        if number not in done or only:
            made = asdict(inject(number))
            done[number] = made
            with notes.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(made) + "\n")
            _tell(made)
    return sum(bool(row["wrong"]) for number, row in done.items() if number < count)


def _noted(notes: Path) -> Iterator[dict[str, Any]]:
    if notes.exists():
        yield from (json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines())


def _tell(row: dict[str, Any]) -> None:
    left = "as undisturbed" if not row["wrong"] else "WRONG: " + "; ".join(row["wrong"])
    ended = " ".join(row["ended"].split())[:140]
    print(
        f"| {row['number']} | {row['stage']} | {row['fault']} | {ended} | {left} | {row['seconds']:.0f} s |", flush=True
    )


def _profile(folder: Path) -> str:
    """The embedded models, drawing in a third of the steps."""
    from fashion_pipeline.settings import PACKAGE, PROFILES

    file = folder / "quick.toml"
    text = (PROFILES / "embedded.toml").read_text(encoding="utf-8").replace("../embedded", f"{PACKAGE}/embedded")
    file.write_text(text.replace("steps = 15", "steps = 3").replace("batch_size = 16", "batch_size = 4"))
    return str(file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
