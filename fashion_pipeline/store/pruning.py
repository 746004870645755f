"""What nothing needs any more: superseded records, models, checkpoints, images and caches."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from fashion_pipeline.core.rows import Origin
from fashion_pipeline.store.records import KINDS, Record
from fashion_pipeline.store.storage.files import freed
from fashion_pipeline.store.storage.parquet import read_parquet
from fashion_pipeline.store.store import Store
from fashion_pipeline.store.versions import TRAIL

_COARSE = 50_000_000
"""Nanoseconds by which the times of files may lie behind the clock: Linux takes them from its last tick."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that may go."""

    path: Path
    what: str
    why: str
    size: int
    """Bytes that removing it gives back at least."""


def leftovers(store: Store) -> list[Leftover]:
    """All that may go. Published versions are complete in themselves and are never among it.

    What stays of each style: the newest record of every kind, and all that those were made from.
    """
    kept = _kept(store)
    return [
        *_records(store, kept),
        *_pictures(store, kept),
        *_checkpoints(store),
        *_caches(store),
        *_images(store, kept),
        *_unfinished(store),
    ]


def remove_leftovers(store: Store) -> list[Leftover]:
    """Remove all that may go, and return it. Raises LockedError, before anything is removed, while a style is run.

    It looks while it holds every style, and the catalog, which a style that is new would need first: what is kept or
    made meanwhile is never among what goes.
    """
    with ExitStack() as locks:
        locks.enter_context(store.locks.one_catalog_at_a_time(wait=0.0))
        for style in sorted({*store.sources.styles(), *store.records.styles("catalog")}):
            locks.enter_context(store.locks.claiming(style, "a command that prunes"))
            locks.enter_context(store.locks.working_on(style, "a command that prunes"))
        superseded = leftovers(store)
        for each in superseded:
            store.files.remove(each.path)
    return superseded


def _kept(store: Store) -> set[tuple[str, str, str]]:
    """(kind, style, key) of the records that stay."""
    newest = [
        record for kind in KINDS for style in store.records.styles(kind) for record in [_newest(store, kind, style)]
    ]
    whole = [one for record in newest for one in store.records.ancestors(record)]
    return {(record.kind, record.style, record.key) for record in whole}


def _newest(store: Store, kind: str, style: str) -> Record:
    return store.records.latest(kind, style)


def _records(store: Store, kept: set[tuple[str, str, str]]) -> Iterator[Leftover]:
    for record in store.records.everything():
        if (record.kind, record.style, record.key) not in kept:
            yield Leftover(
                record.folder, f"{record.style}: {record.kind} {record.key}", "superseded", freed(record.folder)
            )


def _pictures(store: Store, kept: set[tuple[str, str, str]]) -> Iterator[Leftover]:
    """Pictures on asset pages, of records that go."""
    folders = {store.pictures.folder(*each) for each in kept}
    for folder in store.pictures.all():
        if folder not in folders:
            yield Leftover(folder, f"pictures of {folder.parent.parent.name}", "superseded", freed(folder))


def _checkpoints(store: Store) -> Iterator[Leftover]:
    """Of trainings that were finished, or left unfinished before another one of the style was finished."""
    for folder in store.files.glob(store.files.inside("work", "training"), "*/*"):
        style, key = folder.parent.name, folder.name
        done = store.records.find("training", style, key) is not None
        finished = store.records.pointed_at("training", style)
        if done or (folder.exists() and folder.stat().st_mtime_ns < finished - _COARSE):
            why = "the training is finished" if done else "given up for another training"
            yield Leftover(folder, f"{style}: checkpoints of training {key}", why, freed(folder))


def _caches(store: Store) -> Iterator[Leftover]:
    for folder in sorted(store.files.inside("work", "cache").glob("*")):
        yield Leftover(
            folder, f"{folder.name}: latents and text embeddings", "computed again when needed", freed(folder)
        )


def _images(store: Store, kept: set[tuple[str, str, str]]) -> Iterator[Leftover]:
    """Samples that no record names."""
    named: set[str] = set()
    for record in store.records.everything():
        if (record.kind, record.style, record.key) in kept:
            named |= _samples_of(record)
    named |= _published_samples(store)
    for path in store.samples.all():
        if path.stem not in named:
            yield Leftover(path, f"image {path.stem}", "no record names it", freed(path))


def _unfinished(store: Store) -> Iterator[Leftover]:
    """What killed processes were writing."""
    for path in store.files.unfinished():
        yield Leftover(
            path, f"{path.parent.relative_to(store.root)}: half of a file or folder", "given up", freed(path)
        )


def _published_samples(store: Store) -> set[str]:
    """Images behind published versions: their pages show them."""
    named: set[str] = set()
    for style in store.versions.styles():
        for folder in store.versions.all(style):
            for kind, table in (
                ("search", "samples"),
                ("evaluation", "evaluation_samples"),
                ("curation", "training_pairs"),
            ):
                path = store.versions.part(style, folder.name, f"{TRAIL}/{kind}/{table}.parquet")
                named |= set(read_parquet(table, path, "").column("id").to_pylist()) if path.exists() else set()
    return named


def _samples_of(record: Record) -> set[str]:
    if record.kind == "search":
        return set(record.table("samples")["id"].to_pylist())
    if record.kind == "evaluation":
        return set(record.table("evaluation_samples")["id"].to_pylist())
    if record.kind == "curation":
        pairs = record.table("training_pairs")
        return set(pairs.filter(pc.equal(pairs["origin"], Origin.SAMPLE.value))["id"].to_pylist())
    return set()
