"""Records: what a run made, named by its content and never changed; "latest" is a pointer.

```
records/<kind>/style=<style>/record=<key>/record.json, <table>.parquet and other files
records/<kind>/style=<style>/latest.json
```
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from fashion_pipeline.core.evaluation.report import EvaluationReport
from fashion_pipeline.core.names import REPORT
from fashion_pipeline.core.tables import ADDED, schema
from fashion_pipeline.intake.linking import link_or_copy
from fashion_pipeline.store.errors import NewerVersionError, StorageError
from fashion_pipeline.store.storage.files import Files, read_json, read_report, slug
from fashion_pipeline.store.storage.parquet import in_schema, is_of_before, read_parquet, write_parquet


@dataclass(frozen=True)
class Kind:
    """What an asset makes."""

    asset: str
    """The asset to materialise where there is no record yet."""
    tables: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "catalog": Kind("raw_images", ("images", "rejects")),
    "features": Kind("clip_features", ("attributes",)),
    "candidates": Kind("prompt_candidates", ("candidates",)),
    "search": Kind("generated_samples", ("samples", "leaderboard", "explored", "formats", "phrases", "progress")),
    "similarity": Kind("similarity_table", ("similarities",)),
    "prompt_report": Kind("prompt_report", ("prompt_scores",)),
    "curation": Kind("curated_subset", ("training_pairs",)),
    "training": Kind("lora_weights", ("training_log",)),
    "model": Kind("specialised_model"),
    "evaluation": Kind("evaluation_report", ("evaluation_samples", "nearest", "scores")),
}
"""Every kind of record, in the order of the chain."""

Content = str | bytes | Mapping[str, Any] | Path | Callable[[Path], object]
"""A file of a record: text, bytes, values for JSON, a file or folder to copy, or a function that writes to a path.

Weights are linked rather than copied: see `intake.linking`.
"""


class MissingRecordError(StorageError):
    """A stage needs a record that no run has made yet; the message names the asset to materialise."""


@dataclass(frozen=True)
class Record:
    """One record on disk."""

    kind: str
    style: str
    key: str
    inputs: Mapping[str, str]
    """Kind → key of the records that it was made from."""
    made_of: Mapping[str, Any]
    """What else determines it: settings, fingerprints of models, versions."""
    run: str
    """The Dagster run that made it. A later run that finds it leaves it as it is."""
    created: str
    """Date and time, ISO 8601, UTC."""
    folder: Path = field(compare=False)
    files: Files = field(compare=False, repr=False)
    checksums: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Path below the folder → SHA-256, of all files but the tables, whose pages have checksums of their own. Empty in
    records of earlier versions of the program."""

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one of its tables, of all columns or some; none of a table that came after the record.

        Raises StorageError for a damaged file.
        """
        if self.is_older_than(name):
            return schema(name).empty_table().select(list(columns or schema(name).names))
        return read_parquet(name, self.path(f"{name}.parquet"), self._mend, columns)

    def is_older_than(self, table: str) -> bool:
        """Whether it was made by a version of the program that did not know a table yet."""
        if table not in ADDED or self.path(f"{table}.parquet").exists():
            return False
        return is_of_before(table, self.path(f"{KINDS[self.kind].tables[0]}.parquet"))

    def json(self, name: str) -> dict[str, Any]:
        """The values of one of its JSON files. Raises StorageError."""
        return read_json(self.path(name), f"{self.path(name)} is missing: {self._mend}")

    def report(self) -> EvaluationReport:
        """Its report. Raises StorageError."""
        return read_report(self.path(REPORT), f"{self.path(REPORT)} is missing: {self._mend}")

    def path(self, name: str) -> Path:
        """One of its files or folders."""
        return self.files.here(self.folder / name)

    def fetched(self) -> Path:
        """Its folder, with all of its files on this machine."""
        return self.files.here(self.folder)

    @property
    def _mend(self) -> str:
        return _again(self.kind, self.style)


_FIELDS = {each.name for each in fields(Record)} - {"folder", "files"}
"""What stands in `record.json`."""


class Records:
    """All records of a data root."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def add(
        self,
        kind: str,
        style: str,
        *,
        inputs: Mapping[str, Record] | None = None,
        made_of: Mapping[str, Any] | None = None,
        tables: Mapping[str, pa.Table | list[dict[str, Any]]] | None = None,
        files: Mapping[str, Content] | None = None,
        run: str = "",
        key: str | None = None,
    ) -> Record:
        """Store a record and make it the latest of its kind; one with the same content is left as it is.

        The key is the hash of kind, style, inputs, `made_of` and tables, unless one is given; `files` do not count. One
        that was damaged on disk is written anew. Raises NewerVersionError for one that a later version of the program
        wrote.
        """
        ready = {name: in_schema(name, rows) for name, rows in (tables or {}).items()}
        keys = {name: record.key for name, record in (inputs or {}).items()}
        key = key or _key(kind, style, keys, made_of or {}, ready)
        there = self.whole(kind, style, key)
        if there is None or not all(there.path(name).exists() for name in files or {}):
            folder = self._folder(kind, style, key)
            self._files.remove(folder)
            created = datetime.now(UTC).isoformat(timespec="seconds")
            there = Record(kind, style, key, keys, dict(made_of or {}), run, created, folder, self._files)
            self._place(there, ready, files or {})
            there = self.find(kind, style, key) or there
        self.point(there)
        return there

    def _place(self, record: Record, tables: Mapping[str, pa.Table], files: Mapping[str, Content]) -> None:
        try:
            self._files.place(record.folder, lambda fresh: _fill(fresh, record, tables, files))
        except OSError:
            if self.find(record.kind, record.style, record.key) is None:  # else another process was faster
                raise

    def whole(self, kind: str, style: str, key: str) -> Record | None:
        """The record with a key, if it is there and nothing of it is damaged. Reads all its files.

        Raises NewerVersionError for one that a later version of the program wrote.
        """
        try:
            record = self.find(kind, style, key)
            if record is not None:
                for table in KINDS[kind].tables:
                    record.table(table)
                require_same_files(record.fetched(), record.checksums)
        except NewerVersionError:
            raise
        except StorageError:
            return None
        return record

    def find(self, kind: str, style: str, key: str) -> Record | None:
        """The record with a key, if it is there. Raises StorageError for a damaged one."""
        folder = self._folder(kind, style, key)
        if not self._files.here(folder / "record.json").exists():
            return None
        try:
            values = read_json(folder / "record.json", "")
            if later := sorted(values.keys() - _FIELDS):
                raise NewerVersionError(
                    f"{folder / 'record.json'} has the field {later[0]!r}, which a later version of the program wrote: "
                    "install that version"
                )
            return Record(**values, folder=folder, files=self._files)
        except NewerVersionError:
            raise
        except (StorageError, TypeError) as error:
            raise StorageError(f"{folder / 'record.json'} is damaged: {_again(kind, style)}") from error

    def newest(self, kind: str, style: str) -> Record | None:
        """The latest record of a kind, if there is one. Raises StorageError where the pointer leads nowhere."""
        pointer = self._files.now(self._pointer(kind, style))
        if not pointer.exists():
            return None
        try:
            key = str(read_json(pointer, "")["key"])
        except (StorageError, KeyError) as error:
            raise StorageError(f"{pointer} is damaged: {_again(kind, style)}") from error
        record = self.find(kind, style, key)
        if record is None:
            raise StorageError(f"{pointer} names record {key!r}, which is missing: {_again(kind, style)}")
        return record

    def latest(self, kind: str, style: str) -> Record:
        """The latest record of a kind. Raises MissingRecordError with the asset to materialise first."""
        record = self.newest(kind, style)
        if record is None:
            raise MissingRecordError(f"style {style!r} has no {kind} yet: materialise {KINDS[kind].asset} for it first")
        return record

    def pointed_at(self, kind: str, style: str) -> int:
        """When the pointer to the latest record was last moved, in nanoseconds; 0 where there is none."""
        pointer = self._files.now(self._pointer(kind, style))
        return int(read_json(pointer, "")["at"]) if pointer.exists() else 0

    def input(self, record: Record, kind: str) -> Record:
        """The record of another kind that a record was made from. Raises StorageError where it was removed."""
        parent = self.find(kind, record.style, record.inputs[kind])
        if parent is None:
            raise StorageError(f"{kind} {record.inputs[kind]}, from which {record.folder} was made, is missing")
        return parent

    def ancestry(self, record: Record) -> dict[str, Record]:
        """Kind → record, of a record and of all that it was made from and that is still there.

        Of several of a kind, as the searches of several rounds, the nearest.
        """
        by_kind: dict[str, Record] = {}
        for ancestor in self.ancestors(record):
            by_kind.setdefault(ancestor.kind, ancestor)
        return {kind: by_kind[kind] for kind in KINDS if kind in by_kind}

    def ancestors(self, record: Record) -> list[Record]:
        """A record and all that it was made from and that is still there, nearest first."""
        by_key = {(record.kind, record.key): record}
        waiting = [record]
        while waiting:
            for kind, key in waiting.pop(0).inputs.items():
                if (kind, key) in by_key:
                    continue
                if (parent := self.find(kind, record.style, key)) is not None:
                    by_key[kind, key] = parent
                    waiting.append(parent)
        return list(by_key.values())

    def all(self, kind: str, style: str) -> list[Record]:
        """Every record of a kind that can be read, oldest first."""
        records = []
        for folder in self._files.glob(self._files.inside("records", kind, f"style={slug(style)}"), "record=*"):
            with suppress(StorageError):
                records += [record] if (record := self.find(kind, style, folder.name.removeprefix("record="))) else []
        return sorted(records, key=lambda record: (record.created, record.key))

    def intact(self, kind: str, style: str) -> bool:
        """Whether the latest record of a kind is there and nothing of it is damaged."""
        try:
            newest = self.newest(kind, style)
        except StorageError:
            return False
        return newest is not None and self.whole(kind, style, newest.key) is not None

    def styles(self, kind: str) -> list[str]:
        """The styles that have a latest record of a kind."""
        pointers = self._files.glob(self._files.inside("records", kind), "style=*/latest.json")
        return sorted(path.parent.name.removeprefix("style=") for path in pointers)

    def everything(self) -> Iterator[Record]:
        """All records of all kinds and styles."""
        for kind in KINDS:
            for folder in self._files.glob(self._files.inside("records", kind), "style=*"):
                yield from self.all(kind, folder.name.removeprefix("style="))

    def point(self, record: Record) -> None:
        """Make a record the latest of its kind and style."""
        at = time.time_ns()
        with suppress(StorageError, KeyError):  # a damaged pointer is written anew
            at = max(at, self.pointed_at(record.kind, record.style) + 1)  # clocks of machines differ
        self._files.write_json(self._pointer(record.kind, record.style), {"key": record.key, "at": at})

    def _pointer(self, kind: str, style: str) -> Path:
        return self._files.inside("records", kind, f"style={slug(style)}", "latest.json")

    def _folder(self, kind: str, style: str, key: str) -> Path:
        if kind not in KINDS:
            raise KeyError(kind)
        return self._files.inside("records", kind, f"style={slug(style)}", f"record={key}")


def _again(kind: str, style: str) -> str:
    return f"materialise {KINDS[kind].asset} of {style!r} again, which writes it anew"


def digest(table: pa.Table) -> str:
    """A hash of a table's rows and columns."""
    sink = pa.BufferOutputStream()
    plain = table.combine_chunks().replace_schema_metadata(None)
    with pa.ipc.new_stream(sink, plain.schema) as writer:
        writer.write_table(plain)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _key(
    kind: str, style: str, inputs: Mapping[str, str], made_of: Mapping[str, Any], tables: Mapping[str, pa.Table]
) -> str:
    content = {name: digest(table) for name, table in tables.items()}
    text = json.dumps([kind, style, inputs, made_of, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fill(folder: Path, record: Record, tables: Mapping[str, pa.Table], files: Mapping[str, Content]) -> None:
    folder.mkdir()
    for name, table in tables.items():
        write_parquet(name, table, folder / f"{name}.parquet")
    for name, content in files.items():
        write_content(content, folder / name)
    values = asdict(replace(record, files=None))  # type: ignore[arg-type]
    values = {name: value for name, value in values.items() if name not in ("folder", "files")}
    values["checksums"] = checksums(folder)
    (folder / "record.json").write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def checksums(folder: Path) -> dict[str, str]:
    """Path below a folder → SHA-256, of all files but Parquet tables."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".parquet")
    return {str(path.relative_to(folder)): _sha256(path) for path in files}


def require_same_files(folder: Path, known: Mapping[str, str]) -> None:
    """Raise StorageError that names the first file which is gone or has other bytes."""
    for name, checksum in known.items():
        if not (folder / name).is_file() or _sha256(folder / name) != checksum:
            raise StorageError(f"{folder / name} is damaged or gone")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_content(content: Content, path: Path) -> None:
    """Write one file of a record or version."""
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, Path):
        link_or_copy(content, path)
    elif isinstance(content, Mapping):
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        content(path)
