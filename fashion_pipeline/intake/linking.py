"""Large files that are never changed, in two places at the cost of one."""

import os
import shutil
from pathlib import Path

LINKED = ".safetensors"


def link(source: Path, target: Path) -> None:
    """Let `target` be the same file as `source`, or a copy where the disk knows no links; it appears whole.

    Links of `source`, such as those of the hub's cache, are followed. Raises OSError.
    """
    fresh = target.with_name(f".{target.name}.fresh")
    fresh.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), fresh)
    except OSError:
        shutil.copyfile(source, fresh)
    fresh.replace(target)


def link_or_copy(source: Path, target: Path) -> None:
    """A file or a folder: weights are linked, all else, which people may edit, is copied."""
    if source.is_dir():
        target.mkdir()
        for inside in sorted(source.iterdir()):
            link_or_copy(inside, target / inside.name)
    elif source.suffix == LINKED:
        link(source, target)
    else:
        shutil.copyfile(source, target)
