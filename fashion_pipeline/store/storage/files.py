"""The data root: paths that stay inside it, and writes that appear whole or not at all."""

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from fashion_pipeline.core.catalog.listing import style_slug
from fashion_pipeline.core.evaluation.report import EvaluationReport
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.storage.locks import holding
from fashion_pipeline.store.storage.remote import Remote

LAYOUT = 2
"""Raised when files move to other places; a data root of another layout is refused."""

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}")
_GIVEN_UP_SECONDS = 3600.0


class Files:
    """Files below one data root, or below the copy that this machine has of one in object storage."""

    def __init__(self, root: Path) -> None:
        """Raises StorageError for a data root that another version of the program laid out."""
        self.root = root
        self.remote = Remote.of(root)
        self._check_layout()

    def inside(self, *parts: str) -> Path:
        """A path under the root; raises StorageError if the parts would lead out of it."""
        if any(part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part for part in parts):
            raise StorageError(f"{'/'.join(parts)!r} lies outside of the data root {self.root}: use another name")
        return self.root.joinpath(*parts)

    def here(self, path: Path) -> Path:
        """A file or folder that never changes, fetched if it is not here. It may be missing altogether."""
        if self._is_shared(path) and not path.is_file():
            self._remote.fetch(path)
        return path

    def now(self, path: Path) -> Path:
        """A small file that does change, as it is now. It may be missing."""
        if self._is_shared(path):
            self._remote.refresh(path)
        return path

    def glob(self, folder: Path, pattern: str) -> list[Path]:
        """Files and folders below a folder, sorted; `here` has those that are not on this machine."""
        return sorted(self._remote.glob(folder, pattern) if self._is_shared(folder) else folder.glob(pattern))

    def remove(self, path: Path) -> None:
        """Delete a file or a folder, if it is there."""
        if self._is_shared(path):
            self._remote.remove(path)
        remove(path)

    def mirrored(self, folder: Path) -> AbstractContextManager[None]:
        """While the block runs, what others left in a folder is here, and what is written to it is there for others."""
        return self._remote.mirrored(folder) if self._is_shared(folder) else nullcontext()

    def _is_shared(self, path: Path) -> bool:
        return self.remote is not None and self.remote.holds(path)

    @property
    def _remote(self) -> Remote:
        assert self.remote is not None
        return self.remote

    def place(self, path: Path, fill: Callable[[Path], object]) -> Path:
        """Let `fill` make a file or folder under a temporary name, then rename it into place.

        What object storage shares is uploaded before, so that nothing is here alone.
        """
        self._lay_out()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")  # as `unfinished` finds them
        try:
            fill(temporary)
            if self._is_shared(path):
                self._remote.put(temporary, path)
            temporary.replace(path)
        finally:
            remove(temporary)
        return path

    @contextmanager
    def alone(self, name: str, what: str, who: str, wait: float | None = 0.0, *, once: bool = False) -> Iterator[None]:
        """Hold a lock of the data root while the block runs, on this machine and on all others that share the root.

        `name` is its path below `locks`; `what`, `who` and `wait` as in `locks.holding`, `once` as in `Remote.lease`.
        Raises LockedError.
        """
        everywhere = self.remote.lease(name, what, who, wait, once=once) if self.remote else nullcontext()
        with holding(self.inside("locks", *name.split("/")), what, who, wait), everywhere:
            yield

    def changing(self, name: str) -> AbstractContextManager[None]:
        """Held while a small file is read, changed and written again, so that no change of another process is lost."""
        return self.alone(f"changes/{name}.lock", f"{name} of the data root", "a change to it", None, once=True)

    def unfinished(self) -> list[Path]:
        """What `place` was filling when its process was killed; nobody has touched it for an hour."""
        kept = ("records", "embeddings", "looks", "images", "pictures", "pages")
        places = (*kept, "published", "sources", "weights", "work")
        leftovers = []
        for place in places:
            for where, folders, names in os.walk(self.root / place):
                halves = [name for name in (*folders, *names) if _UNFINISHED.fullmatch(name)]
                folders[:] = [name for name in folders if name not in halves]
                leftovers += [Path(where) / name for name in halves]
        return sorted(path for path in leftovers if time.time() - path.lstat().st_mtime > _GIVEN_UP_SECONDS)

    def write_json(self, path: Path, content: Mapping[str, Any]) -> Path:
        """Store values as JSON."""
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        return self.place(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def _check_layout(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise StorageError(f"{self.root} is no folder: set FASHION_PIPELINE_DATA to one")
        mark = self.now(self.root / "layout.json")
        layout = read_json(mark, "")["layout"] if mark.exists() else LAYOUT
        before = ("catalog/*.json", "tables/*/style=*")
        older = not mark.exists() and any(any(self.root.glob(pattern)) for pattern in before)
        if layout != LAYOUT or older:
            raise StorageError(
                f"{self.root} was laid out by another version of this program, which keeps its results in other "
                "places: use a new data root (FASHION_PIPELINE_DATA), or delete this one, and run the styles again"
            )

    def _lay_out(self) -> None:
        mark = self.root / "layout.json"
        if not mark.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            fresh = mark.with_name(f".layout.{uuid.uuid4().hex[:8]}")
            fresh.write_text(f'{{"layout": {LAYOUT}}}\n', encoding="utf-8")
            if self._is_shared(mark):
                self._remote.put(fresh, mark)
            fresh.replace(mark)


def read_json(path: Path, missing: str) -> dict[str, Any]:
    """A JSON file. Raises StorageError with the message `missing`, or one that names a damaged file."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise StorageError(missing) from None
    except (ValueError, OSError) as error:
        raise StorageError(f"{path} is damaged ({error}): delete it and materialise its asset again") from error


def read_report(path: Path, missing: str) -> EvaluationReport:
    """A stored report. Raises StorageError as `read_json` does."""
    values = read_json(path, missing)
    try:
        return EvaluationReport.read(values)
    except ValueError as error:
        raise StorageError(f"{path} is damaged ({error}): delete it and materialise its asset again") from error


def slug(style: str) -> str:
    """The style itself, if it is a slug: Dagster takes any partition key, a path must not."""
    if style_slug(style) != style:
        raise StorageError(f"{style!r} is not a style name: use {style_slug(style)!r}")
    return style


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def freed(path: Path) -> int:
    """Bytes that removing a file or folder gives back at least: files that also lie elsewhere give none."""
    files = path.rglob("*") if path.is_dir() else [path]
    stats = [file.stat() for file in files if file.is_file()]
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else 0
