"""Published versions, each complete in itself, and the pointer to the one in use.

```
published/<style>/<version>/     model, LoRA file, card, report, and trail/: the records and tables behind it
published/<style>/champion.json
```
"""

from collections.abc import Mapping
from pathlib import Path

from fashion_pipeline.store.files import Files, StorageError, read_json, slug
from fashion_pipeline.store.records import Content, Record, write_content

TRAIL = "trail"


class Versions:
    """The published versions of all styles."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def publish(
        self, style: str, version: str, model: Path, extras: Mapping[str, Content], trail: Mapping[str, Record]
    ) -> Path:
        """Copy a model folder, further files and the records behind it to a version, then make it the champion.

        The version is complete before the pointer moves; publishing the same version again changes nothing in it.
        """
        folder = self._files.inside("published", slug(style), version)
        if not folder.exists():
            self._files.place(folder, lambda fresh: _assemble(fresh, model, extras, trail))
        self._files.write_json(self._champion(style), {"version": version})
        return folder

    def champion(self, style: str) -> Path | None:
        """The folder of the published model; None if nothing was published yet."""
        pointer = self._champion(style)
        if not pointer.exists():
            return None
        version = str(read_json(pointer, "")["version"])
        folder = self._files.inside("published", slug(style), version)
        if not folder.is_dir():
            raise StorageError(f"{pointer} names version {version!r}, which is missing: publish {style!r} again")
        return folder

    def all(self, style: str) -> list[Path]:
        """The folders of all versions of a style."""
        return sorted(path for path in self._files.inside("published", slug(style)).glob("*") if path.is_dir())

    def _champion(self, style: str) -> Path:
        return self._files.inside("published", slug(style), "champion.json")


def _assemble(folder: Path, model: Path, extras: Mapping[str, Content], trail: Mapping[str, Record]) -> None:
    write_content(model, folder)
    for name, content in extras.items():
        write_content(content, folder / name)
    for kind, record in trail.items():
        copied = folder / TRAIL / kind
        copied.mkdir(parents=True)
        for file in record.folder.iterdir():
            if file.suffix in (".parquet", ".json"):
                write_content(file, copied / file.name)
