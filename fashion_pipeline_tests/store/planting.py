"""Small records."""

from pathlib import Path

from fashion_pipeline.core.catalog.listing import ColumnMapping, SourceSpec
from fashion_pipeline.store.records import Record
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
