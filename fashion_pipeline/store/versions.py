"""Published versions, each complete in itself, and the pointer to the one in use.

```
published/<style>/<version>/     model, LoRA file, card, report, version.json, and trail/: the records behind it
published/<style>/champion.json  which version is in use, which came before it, which waits, which were rolled back
```

A version is complete before the pointer moves, and the pointer is one file that is replaced whole. So whatever ends a
process, the version in use is the one from before or the one from after.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fashion_pipeline.core.evaluation.report import EvaluationReport
from fashion_pipeline.core.names import EVALUATION_REPORT
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import Content, Record, write_content
from fashion_pipeline.store.storage.files import Files, freed, read_json, read_report, remove, slug

TRAIL = "trail"

IN_USE: Final = "in use"
WAITS: Final = "waits for approval"
ROLLED_BACK: Final = "rolled back"
EARLIER: Final = "earlier"
"""What a version is."""


@dataclass(frozen=True)
class Pointer:
    """What is in use, and how it came to that. Versions by name, oldest first."""

    line: tuple[str, ...] = ()
    """Versions that were published one after the other; the last one is in use."""
    waiting: str | None = None
    """A version that somebody must approve first."""
    rolled_back: tuple[str, ...] = ()
    """Versions that somebody took back: no run publishes them again."""

    @property
    def version(self) -> str | None:
        """The version in use."""
        return self.line[-1] if self.line else None

    def state(self, version: str) -> str:
        """What a version is: IN_USE, WAITS, ROLLED_BACK or EARLIER."""
        if version == self.version:
            return IN_USE
        if version == self.waiting:
            return WAITS
        return ROLLED_BACK if version in self.rolled_back else EARLIER

    def promoted(self, version: str) -> "Pointer":
        """With another version in use."""
        waiting = None if self.waiting == version else self.waiting
        line = (*(each for each in self.line if each != version), version)
        return Pointer(line, waiting, tuple(each for each in self.rolled_back if each != version))


class Versions:
    """The published versions of all styles."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def assemble(
        self, style: str, version: str, model: Path, extras: Mapping[str, Content], trail: Mapping[str, Record]
    ) -> Path:
        """Put a model folder, further files and the records behind it together; weights are linked, not copied.

        Nothing is in use by that. A version that is there is left as it is.
        """
        folder = self.folder(style, version)
        if not self._is_there(folder):
            about = {"style": style, "version": version, "created": datetime.now(UTC).isoformat(timespec="seconds")}
            self._files.place(folder, lambda fresh: _assemble(fresh, model, {**extras, "version.json": about}, trail))
        return folder

    def promote(self, style: str, version: str) -> Path:
        """Make a version the champion. Raises StorageError for one that is not there."""
        folder = self._there(style, version)
        self._point(style, self.pointer(style).promoted(version))
        return folder

    def hold(self, style: str, version: str) -> None:
        """Let a version wait until somebody promotes it; another one that waited does so no longer."""
        self._there(style, version)
        self._point(style, replace(self.pointer(style), waiting=version))

    def roll_back(self, style: str) -> tuple[str, str]:
        """Go back to the version before the one in use; returns both, that one first.

        The version that was in use stays on disk. Versions that are missing are passed over. Raises StorageError where
        there is none before it.
        """
        pointer = self.pointer(style)
        before = [each for each in pointer.line[:-1] if self._is_there(self.folder(style, each))]
        if pointer.version is None or not before:
            raise StorageError(
                f"style {style!r} has no version before the one in use: there is nothing to go back to; "
                f"fashion-pipeline unpublish --style {style} takes the one in use out of use"
            )
        rolled_back = (*pointer.rolled_back, pointer.version)
        self._point(style, replace(pointer, line=tuple(before), rolled_back=rolled_back))
        return before[-1], pointer.version

    def unpublish(self, style: str) -> str:
        """Take the version in use out of use, with none in its place; returns it. It stays on disk.

        Raises StorageError where none is in use.
        """
        pointer = self.pointer(style)
        if pointer.version is None:
            raise StorageError(f"no version of style {style!r} is in use: there is nothing to take out of use")
        self._point(style, replace(pointer, line=(), rolled_back=(*pointer.rolled_back, pointer.version)))
        return pointer.version

    def delete(self, style: str, version: str) -> int:
        """Remove a version; returns the bytes that this gave back. Raises StorageError for one in use or waiting."""
        folder, pointer = self._there(style, version), self.pointer(style)
        if version in (pointer.version, pointer.waiting):
            state = "in use" if version == pointer.version else "waiting for approval"
            raise StorageError(
                f"version {version} of {style!r} is {state}: publish or roll back to another one first, or take it out "
                f"of use with fashion-pipeline unpublish --style {style}"
            )
        self._point(style, replace(pointer, line=tuple(each for each in pointer.line if each != version)))
        size = freed(folder)
        gone = folder.with_name(f".{folder.name}.removed")
        folder.rename(gone)  # half a version must never be found
        self._files.remove(folder)
        remove(gone)
        return size

    def champion(self, style: str) -> Path | None:
        """The folder of the published model; None if nothing was published yet. Raises StorageError if it is gone."""
        folder = self.in_use(style)
        return folder and self._files.here(folder)

    def part(self, style: str, version: str, name: str) -> Path:
        """One of the files and folders of a version, without fetching the others. It may be missing."""
        return self._files.here(self.folder(style, version) / name)

    def report(self, style: str, version: str) -> EvaluationReport:
        """The report of the evaluation by which a version was published. Raises StorageError."""
        missing = f"style {style!r} has no version {version!r} with a report: fashion-pipeline versions lists them"
        return read_report(self.part(style, version, EVALUATION_REPORT), missing)

    def in_use(self, style: str) -> Path | None:
        """The same as `champion`, without fetching the model."""
        version = self.pointer(style).version
        if version is None:
            return None
        folder = self.folder(style, version)
        if not self._is_there(folder):
            raise StorageError(
                f"version {version} of {style!r} is in use, but {folder} is missing: go back with "
                f"fashion-pipeline rollback --style {style}, or name another with publish --version"
            )
        return folder

    def promoted_or(self, style: str, version: str | None) -> Path | None:
        """The folder of a version, or of the one in use where none is named. Raises StorageError."""
        return self.champion(style) if version is None else self._there(style, version)

    def pointer(self, style: str) -> Pointer:
        """What is in use, what was before and what waits."""
        path = self._champion(style)
        if not path.exists():
            return Pointer()
        values = read_json(path, "")
        try:
            line = values.get("line", [values["version"]])  # earlier versions of the program knew the last one only
            return Pointer(tuple(line), values.get("waiting"), tuple(values.get("rolled_back", ())))
        except KeyError as error:
            versions = ", ".join(folder.name for folder in self.all(style)) or "none"
            raise StorageError(
                f"{path} is damaged: delete it and name one of the versions ({versions}) with "
                f"fashion-pipeline publish --style {style} --version …"
            ) from error

    def all(self, style: str) -> list[Path]:
        """The folders of all versions of a style, oldest first."""
        folder_of_style = self._files.inside("published", slug(style))
        if self._files.remote is None:
            folders = [path for path in folder_of_style.glob("[!.]*") if path.is_dir()]
        else:
            folders = [path.parent for path in self._files.glob(folder_of_style, "*/version.json")]
        return sorted(folders, key=lambda path: (self.created(path), path.name))

    def styles(self) -> list[str]:
        """The styles that have versions."""
        return [path.name for path in self._files.glob(self._files.inside("published"), "*")]

    def created(self, folder: Path) -> str:
        """When a version was put together, ISO 8601; empty for one that an earlier program made."""
        about = self._files.here(folder / "version.json")
        return str(read_json(about, "").get("created", "")) if about.exists() else ""

    def folder(self, style: str, version: str) -> Path:
        """Where a version lies, whether it is there or not."""
        return self._files.inside("published", slug(style), version)

    def _there(self, style: str, version: str) -> Path:
        folder = self.folder(style, version)
        if not self._is_there(folder):
            names = ", ".join(each.name for each in self.all(style)) or "none"
            raise StorageError(f"style {style!r} has no version {version!r}; its versions: {names}")
        return self._files.here(folder)

    def _is_there(self, folder: Path) -> bool:
        """Whether a version is there, without fetching it."""
        return folder.is_dir() if self._files.remote is None else self._files.here(folder / "version.json").exists()

    def _point(self, style: str, pointer: Pointer) -> None:
        content = {"version": pointer.version, **asdict(pointer)}
        self._files.write_json(self._champion(style), content)

    def _champion(self, style: str) -> Path:
        return self._files.now(self._files.inside("published", slug(style), "champion.json"))


def _assemble(folder: Path, model: Path, extras: Mapping[str, Content], trail: Mapping[str, Record]) -> None:
    write_content(model, folder)
    for name, content in extras.items():
        write_content(content, folder / name)
    for kind, record in trail.items():
        copied = folder / TRAIL / kind
        copied.mkdir(parents=True)
        for file in record.fetched().iterdir():
            if file.suffix in (".parquet", ".json"):
                write_content(file, copied / file.name)
