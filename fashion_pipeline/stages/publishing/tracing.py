"""From a version back to its photos, prompts, seeds and scores; from a photo on to everything that used it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fashion_pipeline.core.rows import Pair
from fashion_pipeline.intake.photos import content_id
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import KINDS, Record
from fashion_pipeline.store.storage.files import read_json
from fashion_pipeline.store.storage.parquet import read_parquet
from fashion_pipeline.store.store import Store
from fashion_pipeline.store.versions import TRAIL

TRAINED, COMPARED, LISTED = "trained on", "compared with", "in its catalog"
"""How a photo was used, the closest use first."""

LEAST_OF_ID = 8
"""Characters of an id that may stand for it."""


@dataclass(frozen=True)
class Use:
    """Something that was made with a photo."""

    style: str
    kind: str
    """A kind of record, or version."""
    key: str
    how: str
    created: str
    asset: str
    """The asset that makes such things."""
    photos: int = 1
    """How many of the photos that were asked for."""
    state: str = ""
    """Of a version: in use, waits for approval, rolled back or earlier."""


@dataclass(frozen=True)
class Made:
    """A record, or its copy in the trail of a version."""

    kind: str
    folder: Path

    def has(self, table: str) -> bool:
        """Whether it has a table: those of earlier versions of the program lack some."""
        return (self.folder / f"{table}.parquet").exists()

    def table(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one of its tables, of all columns or some. Raises StorageError."""
        return read_parquet(table, self.folder / f"{table}.parquet", "it is a copy in a published version", columns)

    def record(self) -> dict[str, Any]:
        """Its key, when and by which run it was made, and what else `record.json` says. Raises StorageError."""
        path = self.folder / "record.json"
        return read_json(path, f"{path} is missing: restore it from a copy of the version")

    def control(self) -> bool:
        """Whether a training took the random control."""
        return bool(self.record()["made_of"].get("control", False))


def trail_of(store: Store, style: str, version: str) -> dict[str, Made]:
    """Kind → what is behind a version, in the order of the chain, from the version's own folder."""
    folder = store.versions.part(style, version, TRAIL)
    parts = {part.name: Made(part.name, part) for part in folder.glob("*") if part.is_dir()}
    return {kind: parts[kind] for kind in KINDS if kind in parts}


def find_photos(store: Store, asked: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Style → rows of table `images` of photos given by id, by the beginning of one, or by path.

    Those that are in no catalog any more are found in earlier catalogs. Raises StorageError that names the first one
    that nobody knows, or that fits several photos.
    """
    newest = {style: store.records.newest("catalog", style) for style in store.records.styles("catalog")}
    found: dict[str, list[dict[str, Any]]] = {}
    for text in asked:
        hits = _photos_meant([record for record in newest.values() if record], text)
        if not hits:
            hits = _photos_meant([each for style in newest for each in store.records.all("catalog", style)], text)
        if len(hits) != 1:
            what = "is in no catalog" if not hits else f"fits {len(hits)} photos"
            raise StorageError(
                f"{text!r} {what}: name a photo by its path, or by its id, as "
                'fashion-pipeline sql "SELECT id, path FROM images" lists them'
            )
        ((catalog, place),) = hits.values()
        style, row = catalog.style, catalog.table("images").slice(place, 1).to_pylist()[0]
        if row["id"] not in [each["id"] for each in found.get(style, ())]:
            found.setdefault(style, []).append(row)
    return found


def _photos_meant(catalogs: Sequence[Record], text: str) -> dict[str, tuple[Record, int]]:
    """Id → the newest catalog and its row, of the photos that a text names in some catalogs, oldest first."""
    content = _content(text)
    exact: dict[str, tuple[Record, int]] = {}
    meant: dict[str, tuple[Record, int]] = {}
    for catalog in catalogs:
        for place, row in enumerate(catalog.table("images", ("id", "path")).to_pylist()):
            if row["id"] == content:
                exact[row["id"]] = (catalog, place)
            elif _is_meant(row, text):
                meant[row["id"]] = (catalog, place)
    return exact or meant


def uses(store: Store, style: str, ids: set[str]) -> list[Use]:
    """All records and versions of a style that photos went into, in the order of the chain, versions last."""
    affected = []
    for kind in KINDS:
        for record in store.records.all(kind, style):
            if use := _use(style, kind, record.key, record.created, _ancestry(store, record), ids):
                affected.append(use)
    for folder in store.versions.all(style):
        trail = trail_of(store, style, folder.name)
        if use := _use(style, "version", folder.name, store.versions.created(folder), trail, ids):
            affected.append(replace(use, state=store.versions.pointer(style).state(folder.name)))
    return affected


def stale(store: Store) -> list[Use]:
    """Everything that withdrawn photos went into and that is still there."""
    by_style: dict[str, set[str]] = {}
    for photo in store.withdrawals.all():
        by_style.setdefault(photo.style, set()).add(photo.id)
    return [use for style, ids in by_style.items() for use in uses(store, style, ids)]


def trace_version(store: Store, style: str, version: str) -> dict[str, Any]:
    """What is behind a version, from its own trail: photos, prompts, seeds, scores and verdict. JSON types only."""
    folder = store.versions.folder(style, version)
    report = store.versions.report(style, version)
    trail = trail_of(store, style, version)
    images = {row["id"]: row for row in trail["catalog"].table("images").to_pylist()} if "catalog" in trail else {}
    pairs = trained_pairs(trail)
    searched = trail.get("search")
    samples = trail["evaluation"].table("evaluation_samples") if "evaluation" in trail else None
    return {
        "style": style,
        "version": version,
        "folder": str(folder),
        "verdict": report.verdict,
        "reason": report.reason,
        "prompts": searched.table("leaderboard").select(["prompt", "strategy", "mean"]).to_pylist() if searched else [],
        "trained_on": [
            {"id": pair.id, "origin": pair.origin, "caption": pair.caption, "why": pair.why}
            | ({"path": images[pair.id]["path"]} if pair.id in images else {})
            for pair in pairs
        ],
        "evaluated_on": _distinct(samples, "reference"),
        "seeds": _distinct(samples, "seed"),
        "scores": report.as_json()["scores"],
        "records": {kind: made.record()["key"] for kind, made in trail.items()},
    }


def _use(style: str, kind: str, key: str, created: str, made: Mapping[str, Made], ids: set[str]) -> Use | None:
    """How closely some photos went into something, by the records behind it; None where they did not."""
    catalog = made.get("catalog")
    listed = ids & set(catalog.table("images", ("id",))["id"].to_pylist()) if catalog else set()
    if not listed:
        return None
    reached = [
        (TRAINED, {pair.id for pair in trained_pairs(made)} if kind != "curation" else set()),
        (COMPARED, {each for part in ("evaluation", "search") for each in _references(made.get(part))}),
        (LISTED, listed),
    ]
    how, hit = next((name, ids & photos) for name, photos in reached if ids & photos)
    asset = "published_model" if kind == "version" else KINDS[kind].asset
    return Use(style, kind, key, how, created, asset, len(hit))


def _ancestry(store: Store, record: Record) -> dict[str, Made]:
    return {kind: Made(kind, each.folder) for kind, each in store.records.ancestry(record).items()}


def trained_pairs(made: Mapping[str, Made]) -> list[Pair]:
    """The pairs of the training behind something; none where there is no training."""
    curation, training = made.get("curation"), made.get("training")
    if curation is None or training is None:
        return []
    pairs = Pair.read(curation.table("training_pairs"))
    return [pair for pair in pairs if pair.kept != training.control()]


def _references(made: Made | None) -> Iterator[str]:
    for table in ("evaluation_samples", "samples"):
        if made and made.has(table):
            yield from made.table(table, ("reference",))["reference"].to_pylist()


def _distinct(table: pa.Table | None, column: str) -> list[Any]:
    return [] if table is None else sorted(pc.unique(table[column]).to_pylist())


def _is_meant(row: Mapping[str, Any], text: str) -> bool:
    """Whether a text is a photo's id, the beginning of it, or its path."""
    by_id = len(text) >= LEAST_OF_ID and row["id"].startswith(text)
    return by_id or row["path"] == text or Path(text).as_posix().endswith(f"/{row['path']}")


def _content(text: str) -> str | None:
    """The id of a file, if that is what the text names."""
    path = Path(text)
    return content_id(path.read_bytes()) if path.is_file() else None
