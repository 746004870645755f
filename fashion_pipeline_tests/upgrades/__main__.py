"""Keeps a small data root of this version for the tests of later ones: `python -m fashion_pipeline_tests.upgrades`.

Run it once for each release and commit what it writes, `<version>.tar.xz`: a style of Fashion-MNIST coats that went
through the whole chain and was published, and another one beside it. Left out are the weights of the base, which are
large and the same everywhere, and what belongs to a machine.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from fashion_pipeline.settings import Settings
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.conftest import SAMPLES, quick_profile
from fashion_pipeline_tests.faults.stages import publish_as_better

HERE = Path(__file__).parent
LEFT_OUT = ("dagster_home", "locks", "machine", "work", "pictures")
LARGE = 1 << 20


def main() -> None:
    """Run, publish, pack."""
    with tempfile.TemporaryDirectory() as name:
        root, profile = Path(name) / "data", quick_profile()
        for style, photos in (("coat", 14), ("bag", 10)):
            (root / "raw" / style).mkdir(parents=True)
            for photo in sorted((SAMPLES / style).glob("*.png"))[:photos]:
                shutil.copy(photo, root / "raw" / style)
        knobs = ["--steps", "2", "--budget", "8", "--products", "2"]
        program = [sys.executable, "-m", "fashion_pipeline.cli", "run", "--style", "coat", *knobs]
        settings = Settings(root, profile, "cpu", "fp32").environment()
        subprocess.run([*program, "--source", str(root / "raw")], check=True, env=os.environ | settings)
        publish_as_better(Store(root), Models(profile, "cpu", "fp32"))
        file = HERE / f"{version('fashion-pipeline')}.tar.xz"
        with tarfile.open(file, "w:xz", preset=9) as archive:
            archive.add(root, "data", filter=_kept)
    print(f"{file.name}: {file.stat().st_size >> 10} KiB")


def _kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = Path(member.name).parts
    too_large = member.name.endswith(".safetensors") and (member.size > LARGE or not member.isfile())
    if too_large or (len(parts) > 1 and parts[1] in LEFT_OUT):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
