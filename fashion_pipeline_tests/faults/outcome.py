"""What a data root has come to: what must be the same after a fault and a restart as without it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import KINDS, digest
from fashion_pipeline.store.storage.files import read_json
from fashion_pipeline.store.store import Store

WEIGHTS = "*.safetensors"
_LEFT_OUT = ("raw", "work", "dagster_home")


@dataclass(frozen=True)
class Injected:
    """One injection, and what came of it."""

    number: int
    stage: str
    fault: str
    ended: str
    """How what was disturbed ended."""
    wrong: tuple[str, ...]
    """What was not as without the fault, after a restart."""
    seconds: float


def outcome(root: Path) -> dict[str, Any]:
    """The latest records with their tables by content and weights by hash; versions and champions by weights."""
    store = Store(root)
    found: dict[str, Any] = {}
    for kind, made in KINDS.items():
        for style in store.records.styles(kind):
            record = store.records.latest(kind, style)
            tables = {name: digest(record.table(name)) for name in made.tables}
            weights = {str(path.relative_to(record.folder)): sha256(path) for path in files(record.folder, WEIGHTS)}
            found[f"{kind} of {style}"] = {"key": record.key, "tables": tables, "weights": weights}
    for version in [version for style in store.versions.styles() for version in store.versions.all(style)]:
        found[f"version {version.relative_to(root)}"] = {
            str(path.relative_to(version)): sha256(path) for path in files(version, WEIGHTS)
        }
    for pointer in sorted((root / "published").glob("*/champion.json")):
        found[f"champion of {pointer.parent.name}"] = read_json(pointer, "")["version"]
    return found


def torn(root: Path) -> list[str]:
    """Files that are there under their own name and cannot be read whole; checkpoints are looked at by trainings."""
    wrong = []
    for path in files(root, "*.parquet"):
        try:
            pq.ParquetFile(path, page_checksum_verification=True).read()
        except Exception as error:
            wrong.append(f"{path.relative_to(root)}: {error}")
    for path in files(root, "*.json"):
        try:
            read_json(path, "missing")
        except StorageError as error:
            wrong.append(str(error))
    return wrong


def files(folder: Path, pattern: str) -> list[Path]:
    """Files below a folder, without half-written ones, photos, work under way and the instance."""
    return [
        path
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
        and not any(part.startswith(".") or part in _LEFT_OUT for part in path.relative_to(folder).parts)
    ]


def sha256(path: Path) -> str:
    """The hash of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """In what two outcomes differ."""
    names = [*wanted, *(name for name in found if name not in wanted)]
    return [name for name in names if found.get(name) != wanted.get(name)]
