"""Take the models of `tools.real_models.build` through the chain; print seconds, peak memory and bytes on disk.

    python -m tools.real_models.measure FOLDER [--data ROOT]

FOLDER is what `build` wrote; a dozen photos of two sample styles are used, at 256 pixels. Steps: the doctor; one prompt
of the search; one training step with LoRA and one with the whole UNet, each with export and evaluation; and a version
published from either, whatever its verdict. Each command is a process of its own, so that its peak is its own.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from fashion_pipeline.core.names import PIPELINE
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.store.planting import put_in_use

SAMPLES = Path(__file__).parents[2] / "data" / "samples"
PHOTOS = 24
STYLE, OTHER = "coat", "bag"
SHARED = ["--products", "1"]
KNOBS = {
    "LoRA": ["--steps", "1"],
    "LoRA, gradient checkpointing": ["--steps", "1", "--set", "gradient_checkpointing=true"],
    "whole UNet, adafactor": ["--steps", "1", "--set", "method=full", "--set", "optimizer=adafactor"],
}


def main(models: Path, root: Path) -> None:
    """Run everything and print a table."""
    _photos(root / "photos")
    os.environ["FASHION_PIPELINE_PROFILE"] = str((models / "sd15.toml").absolute())
    os.environ["FASHION_PIPELINE_DATA"] = str(root.absolute())
    store = Store(root.absolute())
    print(f"{'step':40} {'seconds':>8} {'peak GB':>8}  of which training")
    _measured("doctor", "doctor")
    source = ["--style", STYLE, "--source", str(root / "photos")]
    _measured("catalog, features, one prompt", "run", "--mode", "prompt", *source, "--budget", "8", *SHARED)
    trained: list[Record] = []
    for name, knobs in KNOBS.items():
        _measured(name, "run", "--mode", "finetune", "--defaults", *source, *SHARED, *knobs, training=store)
        trained.append(store.records.latest("training", STYLE))
    for record in trained[:2]:
        model = store.records.find("model", STYLE, record.key)
        assert model is not None
        put_in_use(store, STYLE, record.key, model.path(PIPELINE), {}, {})
    print(f"\nbase: {_on_disk(models / 'stable-diffusion-v1-5') / 1e9:.2f} GB with its safety checker")
    for part in ("records", "published", "work", "."):
        own, beside = _on_disk(root / part), _on_disk(root / part, models)
        print(f"{part:12} {own / 1e9:6.2f} GB, of which {beside / 1e9:.2f} GB are not the base's own files")


def _photos(folder: Path) -> None:
    for style in (STYLE, OTHER):
        if not (folder / style).exists():
            (folder / style).mkdir(parents=True)
            for photo in sorted((SAMPLES / style).glob("*.png"))[:PHOTOS]:
                shutil.copy(photo, folder / style)


def _measured(name: str, *command: str, training: Store | None = None) -> None:
    """Run a command of the program; the peak is that of all its processes together."""
    began, peak = time.monotonic(), 0
    program = str(Path(sys.executable).with_name("fashion-pipeline"))
    process = psutil.Popen([program, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with (Path(os.environ["FASHION_PIPELINE_DATA"]) / "measure.log").open("ab") as log:
        os.set_blocking(process.stdout.fileno(), False)
        while process.poll() is None:
            peak = max(peak, _memory(process))
            log.write(process.stdout.read() or b"")
            time.sleep(0.2)
        log.write(process.stdout.read() or b"")
    told = f"exit code {process.returncode}" if process.returncode else ""
    if training is not None and not process.returncode:
        result = json.loads(training.records.latest("training", STYLE).path("result.json").read_text())
        told = f"{result['peak_memory'] / 1e9:.2f} GB"
    print(f"{name:40} {time.monotonic() - began:8.0f} {peak / 1e9:8.2f}  {told}", flush=True)


def _memory(process: psutil.Process) -> int:
    """Resident bytes of a process and its children now."""
    try:
        family = [process, *process.children(recursive=True)]
        return sum(each.memory_info().rss for each in family)
    except psutil.Error:
        return 0


def _on_disk(folder: Path, without: Path | None = None) -> int:
    """Bytes of a folder, each file once however many links it has; without those of another folder."""
    theirs = {_inode(file) for file in without.rglob("*")} if without else set()
    files = {_inode(file): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    return sum(size for inode, size in files.items() if inode not in theirs)


def _inode(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_dev, stat.st_ino


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data-sd15-measured"))
    given = parser.parse_args()
    main(given.folder, given.data)
