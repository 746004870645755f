"""Ten full pipelines at once through the run queue: all must end well, and no two may have the device at once.

    python -m tools.ten_runs [--data FOLDER] [--runs 10] [--postgres]

Each style has some photos of the sample catalog. The UI's web server and daemon run as `fashion-pipeline ui` starts
them; the runs are submitted together, as a backfill does. Whether two steps of the pool ever overlapped is read from
the event log afterwards: when each step that holds the pool began to compute, and when it ended. With `--postgres` the
instance's storage is a PostgreSQL server, started for this.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from tools.postgres import postgres_server

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
PHOTOS = 30
CONFIG = {
    "ops": {
        "generated_samples": {"config": {"budget": 8, "held_out_products": 2}},
        "lora_weights": {"config": {"steps": 2}},
        "evaluation_report": {"config": {"products": 2}},
    }
}
LOOK_SECONDS = 1.0


def make_styles(root: Path, count: int) -> list[str]:
    """Folders of photos, none of which is in two."""
    names = []
    samples = [folder for folder in sorted(SAMPLES.iterdir()) if folder.is_dir()]
    for number in range(count):
        sample, part = samples[number % len(samples)], number // len(samples)
        name = f"{sample.name}-{part}"
        (root / name).mkdir(parents=True)
        for photo in sorted(sample.glob("*.png"))[part * PHOTOS : (part + 1) * PHOTOS]:
            shutil.copy(photo, root / name)
        names.append(name)
    return names


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(argv: list[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder that does not exist yet; default: a temporary one")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--postgres", action="store_true")
    given = parser.parse_args(argv)
    with ExitStack() as stack:
        if given.postgres:
            os.environ["FASHION_PIPELINE_DATABASE"] = stack.enter_context(postgres_server())
        return run_all(given.data or Path(tempfile.mkdtemp(prefix="ten-")), given.runs)


def run_all(folder: Path, count: int) -> int:
    """Run so many styles at once in a new data root; returns 0 if all went well."""
    os.environ["FASHION_PIPELINE_DATA"] = str(folder / "data")
    styles = make_styles(folder / "data" / "raw", count)

    from fashion_pipeline.api.common import open_store
    from fashion_pipeline.intake.sources import read_source
    from fashion_pipeline.running.launching import launcher
    from fashion_pipeline.settings import enter, read_settings
    from fashion_pipeline.stages.catalog.sources import known_sources, take_in

    enter(read_settings())
    store = open_store()
    for spec in known_sources(store):
        take_in(store, spec, read_source(spec))
    command = [sys.executable, "-m", "fashion_pipeline.cli", "ui", "--port", str(free_port())]
    ui = subprocess.Popen(command, start_new_session=True)
    try:
        with launcher(store) as launch:
            launch.instance.add_dynamic_partitions("styles", styles)
            began = time.monotonic()
            runs = [launch.submit("full_pipeline", style, CONFIG, {"reason": "ten at once"}) for style in styles]
            most = _watch(launch.instance, runs)
            print(f"storage: {type(launch.instance.run_storage).__name__}")
            print(f"{len(runs)} runs in {time.monotonic() - began:.0f} s, {most} at most under way at once")
            return _judge(launch.instance, runs)
    finally:
        ui.send_signal(signal.SIGTERM)
        ui.wait(60)


def _watch(instance: object, runs: list[str]) -> int:
    """Wait until all have ended; returns how many were under way at once, at most."""
    from dagster import DagsterInstance, DagsterRunStatus

    assert isinstance(instance, DagsterInstance)
    most = 0
    while True:
        found = [instance.get_run_by_id(run) for run in runs]
        going = sum(run is not None and run.status == DagsterRunStatus.STARTED for run in found)
        ended = sum(run is not None and run.is_finished for run in found)
        most = max(most, going)
        print(f"\r{ended} ended, {going} under way", end="", file=sys.stderr, flush=True)
        if ended == len(runs):
            print(file=sys.stderr)
            return most
        time.sleep(LOOK_SECONDS)


def _judge(instance: object, runs: list[str]) -> int:
    """Whether all ended well and no two steps of the pool overlapped."""
    from dagster import DagsterEventType, DagsterInstance

    from fashion_pipeline.defs.automation.jobs import ASSETS
    from fashion_pipeline.running.runs import POOL

    assert isinstance(instance, DagsterInstance)
    pooled = {asset.key.to_user_string() for asset in ASSETS if asset.op.pool == POOL}
    spans: list[tuple[float, float, str]] = []
    bad = 0
    for run_id in runs:
        run = instance.get_run_by_id(run_id)
        if run is None or not run.is_success:
            bad += 1
        begun: dict[str, float] = {}
        for entry in instance.all_logs(run_id):
            event = entry.dagster_event
            if event is None or entry.step_key not in pooled:
                continue
            if event.event_type == DagsterEventType.STEP_START:
                begun[entry.step_key] = entry.timestamp
            elif event.event_type in (DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE):
                spans.append((begun[entry.step_key], entry.timestamp, f"{entry.step_key} of {run_id[:8]}"))
    spans.sort()
    overlaps = [(a[2], b[2]) for a, b in pairwise(spans) if b[0] < a[1]]
    print(f"{len(runs) - bad} of {len(runs)} ended well; {len(spans)} steps had the device, {len(overlaps)} overlapped")
    for first, second in overlaps:
        print(f"  {second} began before {first} had ended")
    return 1 if bad or overlaps else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
