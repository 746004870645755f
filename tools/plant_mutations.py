"""Plant known mistakes, one at a time, in a copy of the project, and see whether the tests notice.

    python -m tools.plant_mutations [name …]

Each mistake once stood for a rule that no test protected. Says whether `make test` notices it or only `make test-all`,
and ends with exit code 1 if neither does.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = (
    *("fashion_pipeline", "fashion_pipeline_tests", "data/samples", "deploy", "tools"),
    *("pyproject.toml", "constraints.txt"),
)

SUITES = {"not thorough": "make test", "thorough": "make test-all"}
"""Tests that pytest selects → who runs them first."""


@dataclass(frozen=True)
class Mutation:
    """One mistake: a piece of a file, and what stands there instead."""

    name: str
    file: str
    """Below the package."""
    right: str
    wrong: str
    tests: Sequence[str]
    """Files of tests, one of which has to fail, below the package of tests."""
    also: Sequence[Sequence[str]] = ()
    """Further pieces of the file, and what stands there instead."""


def mutations() -> list[Mutation]:
    """Those of `mistakes.toml`, beside this file."""
    with Path(__file__).with_name("mistakes.toml").open("rb") as stream:
        return [Mutation(**row) for row in tomllib.load(stream)["mistake"]]


def main() -> int:
    """Plant the mistakes that were asked for, or all; returns how many went unnoticed, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="names of mistakes; all without any")
    names = parser.parse_args().names
    unnoticed = [
        mutation.name for mutation in mutations() if not names or mutation.name in names if not noticed(mutation)
    ]
    print(f"{len(unnoticed)} unnoticed" + (f": {', '.join(unnoticed)}" if unnoticed else ""))
    return int(bool(unnoticed))


def noticed(mutation: Mutation) -> bool:
    """Whether a test fails with the mistake in place; says of which suite."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source, target = ROOT / name, copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
        plant(copy, mutation)
        for suite, command in SUITES.items():
            if failed := _failing(copy, mutation, suite):
                print(f"noticed by {command:13} {mutation.name}: {failed}", flush=True)
                return True
    print(f"UNNOTICED                {mutation.name}: no test failed", flush=True)
    return False


def _failing(copy: Path, mutation: Mutation, suite: str) -> str:
    """The first test of a mutation's files that fails; empty where none does."""
    tests = [f"fashion_pipeline_tests/{test}" for test in mutation.tests]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-m", suite, *tests],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = [line.removeprefix("FAILED ") for line in result.stdout.splitlines() if line.startswith("FAILED ")]
    return failed[0].partition(" - ")[0] if failed else ""


def plant(root: Path, mutation: Mutation) -> None:
    """Put the mistake into a copy of the project."""
    file = root / "fashion_pipeline" / mutation.file
    file.write_text(planted(file.read_text(encoding="utf-8"), mutation), encoding="utf-8")


def planted(text: str, mutation: Mutation) -> str:
    """The text of a file with the mistake. Raises ValueError where the right piece does not stand exactly once."""
    for right, wrong in ((mutation.right, mutation.wrong), *mutation.also):
        if text.count(right) != 1:
            raise ValueError(f"{mutation.name}: {right!r} stands {text.count(right)} times in {mutation.file}")
        text = text.replace(right, wrong)
    return text


if __name__ == "__main__":
    sys.exit(main())
