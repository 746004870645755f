"""Faults at random, few of them: `python -m fashion_pipeline_tests.faults` has the long version."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(shutil.which("cc") is None, reason="faults are planted by a library in C"),
]

NUMBERS = (3, 7, 48, 73, 98, 121, 139, 169)
"""Each kind of fault once, at other stages; two kills."""


def test_after_every_fault_a_restart_ends_in_the_state_of_an_undisturbed_run(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "fashion_pipeline_tests.faults", "--chain", "0", "--folder", str(tmp_path)]
    numbers = [part for number in NUMBERS for part in ("--only", str(number))]
    done = subprocess.run([*program, *numbers], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == len(NUMBERS), done.stdout + done.stderr
    assert done.returncode == 0 and all("as undisturbed" in row for row in rows), done.stdout


def test_the_harness_notices_what_a_fault_has_changed(tmp_path: Path) -> None:
    from fashion_pipeline.store.store import Store
    from fashion_pipeline_tests.faults.outcome import differences, outcome, torn
    from fashion_pipeline_tests.store.planting import catalog

    store = Store(tmp_path)
    made = catalog(store, "coat", "a.jpg")
    before = outcome(tmp_path)
    assert not torn(tmp_path) and not differences(outcome(tmp_path), before)
    catalog(store, "coat", "b.jpg")
    assert differences(outcome(tmp_path), before) == ["catalog of coat"]
    os.truncate(made.path("rejects.parquet"), 10)
    assert len(torn(tmp_path)) == 1
