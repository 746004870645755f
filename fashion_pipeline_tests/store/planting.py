"""Small records."""

from collections.abc import Mapping
from pathlib import Path

from fashion_pipeline.core.catalog.listing import ColumnMapping, SourceSpec
from fashion_pipeline.store.records import Content, Record
from fashion_pipeline.store.store import Store

SOURCE = SourceSpec("/photos", ColumnMapping(style="usage", attributes={"colour": "baseColour"}), "{style} wear")


def reject(path: str) -> dict[str, str]:
    return {"path": path, "reason": "empty: replace it"}


def catalog(store: Store, style: str, *paths: str, run: str = "") -> Record:
    rows = {"images": [], "rejects": [reject(path) for path in paths]}
    return store.records.add("catalog", style, tables=rows, run=run)


def files(root: Path) -> list[str]:
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    return [name for name in found if not name.endswith("layout.json")]


def put_in_use(
    store: Store, style: str, version: str, model: Path, extras: Mapping[str, Content], trail: Mapping[str, Record]
) -> Path:
    """Assemble a version and make it the one in use."""
    store.versions.assemble(style, version, model, extras, trail)
    return store.versions.promote(style, version)
