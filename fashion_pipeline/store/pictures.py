"""Pictures that asset pages show: `pictures/<kind>/style=<style>/record=<key>/<name>.png`, made again at each run."""

from pathlib import Path

from fashion_pipeline.store.storage.files import Files, slug

SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png"}
"""Beginning of a file → what its name ends with."""


class Pictures:
    """The pictures beside the records."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def put(self, kind: str, style: str, key: str, name: str, data: bytes) -> str:
        """Keep a PNG or JPEG; returns its name with the suffix."""
        full = f"{name}{SUFFIXES[data[:2]]}"
        self._files.place(self._place(kind, style, key, full), lambda temporary: temporary.write_bytes(data))
        return full

    def path(self, kind: str, style: str, key: str, name: str) -> Path:
        """Where one lies. Raises StorageError for what is no name."""
        return self._files.here(self._place(kind, style, key, name))

    def folder(self, kind: str, style: str, key: str) -> Path:
        """Where those of a record lie."""
        return self._files.inside("pictures", kind, f"style={slug(style)}", f"record={key}")

    def all(self) -> list[Path]:
        """The folders of all records that have any."""
        return self._files.glob(self._files.inside("pictures"), "*/style=*/record=*")

    def _place(self, kind: str, style: str, key: str, name: str) -> Path:
        return self.folder(kind, style, key) / self._files.inside(name).name
