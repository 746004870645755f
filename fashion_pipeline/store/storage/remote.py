"""A data root in object storage (S3, Google Cloud Storage, Azure): what this machine has of it is a copy.

Nearly all that a data root holds is named by its content and never changes. That is uploaded before it appears here, a
folder's `record.json` or `version.json` last, and fetched where it is missing; so a machine sees all of something or
nothing, although object storage has no rename. What does change is small and replaced whole (`latest.json`,
`champion.json`, sources, settings): it is read there each time, so nothing is ever listed to find what is current.
Caches, locks and the Dagster instance stay on the machine.

Checkpoints follow while a training runs, so that another machine can go on with them.

What several machines must not do at once is guarded by a lease: a numbered object that only one of them can create.
Whether it was renewed in time, the clock of object storage alone tells. Who finds a higher number than its own has lost
the lease: its work is interrupted, and what it was about to upload is not uploaded (a fencing token, as in Kleppmann,
"How to do distributed locking", 2016).
"""

import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from typing import Any

import pyarrow as pa
import pyarrow.fs

from fashion_pipeline.core.names import REPORT
from fashion_pipeline.core.repeating import repeating
from fashion_pipeline.intake.objects import opened, refusal, silence
from fashion_pipeline.settings import MARK
from fashion_pipeline.store.errors import LockedError, StorageError
from fashion_pipeline.store.storage.locks import interrupt_work, interruptible

SHARED = frozenset(
    {"layout.json", "records", "embeddings", "looks", "images", "pictures", "published", "sources", "weights"}
    | {"settings.toml", "withdrawn.json"}
)
"""What of a data root lies in object storage, with the checkpoints of trainings under way."""

_CHECKPOINTS = ("work", "training")

LEASE_SECONDS = 90.0
"""A lease that was not renewed for so long is over: its machine is gone."""

RENEW_SECONDS = 20.0
LOOK_SECONDS = 1.0

MIRROR_SECONDS = 5.0
"""Between two looks at a folder that is mirrored."""

_LAST = ("record.json", "version.json", REPORT, "state.json")


class RemoteError(StorageError, ConnectionError):
    """Object storage did not answer; it may a minute later."""


class LeaseLostError(LockedError):
    """A lease could not be renewed in time, and somebody else has taken it."""


@dataclass
class _Lease:
    """A lease that this process holds."""

    name: str
    what: str
    who: str
    number: int
    renewed: float
    """By this process's monotonic clock."""
    lost: bool = False

    def error(self) -> LeaseLostError:
        return LeaseLostError(
            f"{self.what} was taken over by another machine, since object storage did not answer here for "
            f"{LEASE_SECONDS:.0f} seconds: run it again, it goes on where it stopped"
        )


class Remote:
    """The root at a URL, such as `s3://bucket/fashion`, of which a folder is the copy."""

    def __init__(self, url: str, root: Path) -> None:
        """Raises StorageError where the URL's kind of storage is not known or not installed."""
        self.url, self._root = url.rstrip("/"), root
        self._held: list[_Lease] = []
        try:
            self._fs, self._prefix = opened(self.url)
        except ValueError as error:
            raise StorageError(str(error)) from error

    @classmethod
    def of(cls, root: Path) -> "Remote | None":
        """The root that a folder is a copy of; None for a data root of its own."""
        mark = root / MARK
        return cls(json.loads(mark.read_text(encoding="utf-8"))["url"], root) if mark.exists() else None

    def holds(self, path: Path) -> bool:
        """Whether what lies at a path of the copy belongs to object storage."""
        parts = path.relative_to(self._root).parts
        return parts[0] in SHARED or parts[:2] == _CHECKPOINTS

    def put(self, source: Path, path: Path) -> None:
        """Upload a local file or folder as what lies at a path; what tells that a folder is complete comes last.

        Raises LeaseLostError where somebody else has taken what this process thinks it holds.
        """
        self._require_leases()
        files = [source] if source.is_file() else [each for each in source.rglob("*") if each.is_file()]
        for file in sorted(files, key=lambda each: (each.name in _LAST, each)):
            with self._told():
                self._fs.put_file(str(file), self._key(path / file.relative_to(source)))

    def fetch(self, path: Path) -> list[Path]:
        """Bring what is missing here of a file or folder; returns the files that there are. There may be none."""
        with self._told():
            files = [self._local(key) for key in self._fs.find(self._key(path))]
        for local in files:
            if not local.exists():
                local.parent.mkdir(parents=True, exist_ok=True)
                fresh = _beside(local)
                try:
                    with self._told():
                        self._fs.get_file(self._key(local), str(fresh))
                    fresh.replace(local)
                finally:
                    fresh.unlink(missing_ok=True)
        return files

    def in_place(self, paths: Sequence[Path]) -> tuple[Any, str, list[str]]:
        """Arrow's file system of the root, the root's path there, and those of some files: to read without fetching."""
        system = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(self._fs))
        return system, self._prefix, [self._key(path) for path in paths]

    def refresh(self, path: Path) -> None:
        """Make a small file here what it is there, or remove it.

        An answer that is older than what was seen before is not believed: its writer counts upwards (`at`).
        """
        content = self._read(self._key(path))
        if content is None:
            path.unlink(missing_ok=True)
        elif not path.exists() or (path.read_bytes() != content and _count(content) >= _count(path.read_bytes())):
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = _beside(path)
            fresh.write_bytes(content)
            fresh.replace(path)

    def glob(self, folder: Path, pattern: str) -> list[Path]:
        """Where the files and folders below a folder that fit a pattern lie here, or would lie."""
        with self._told():
            return [self._local(key) for key in self._fs.glob(f"{self._key(folder)}/{pattern}")]

    def remove(self, path: Path) -> None:
        """Delete a file or folder there; of a folder first what tells that it is complete."""
        with self._told():
            keys = self._fs.find(self._key(path))
        for key in sorted(keys, key=lambda each: each.rpartition("/")[2] not in _LAST):
            with self._told(), suppress(FileNotFoundError):
                self._fs.rm_file(key)

    @contextmanager
    def mirrored(self, folder: Path) -> Iterator[None]:
        """Bring what is missing of a folder, and keep it there as it is here while the block runs, and as it ends.

        What is being written has a name that begins with a dot. Where object storage does not answer, the next look
        sends what this one has not.
        """
        there = {path.relative_to(folder).parts[0] for path in self.fetch(folder)}
        try:
            with repeating(lambda: self._mirror(folder, there), MIRROR_SECONDS):
                yield
        finally:
            self._mirror(folder, there)

    def _mirror(self, folder: Path, there: set[str]) -> None:
        """Send what of a folder is not there, then remove there what is gone here."""
        with suppress(StorageError, FileNotFoundError):  # the writer may drop what is being sent
            here = sorted(path.name for path in folder.glob("[!.]*"))
            for name in here:
                if name not in there:
                    self.put(folder / name, folder / name)
                    there.add(name)
            for name in sorted(there.difference(here)):
                self.remove(folder / name)
                there.remove(name)

    def is_held(self, name: str) -> bool:
        """Whether some machine holds a lease."""
        number, held = self._newest(name)
        return held is not None and self._is_alive(name, number, held)

    @contextmanager
    def lease(self, name: str, what: str, who: str, wait: float | None = 0.0, *, once: bool = False) -> Iterator[None]:
        """Hold a lease of all machines while the block runs; `what`, `who` and `wait` as in `locks.holding`.

        Raises LockedError. A machine that is gone loses its lease after LEASE_SECONDS. Who lost one is interrupted, as
        by Ctrl-C, and gets LeaseLostError. One that is held `once` leaves nothing behind.
        """
        lease = _Lease(name, what, who, self._take(name, what, who, wait), time.monotonic())
        self._held.append(lease)

        def renew() -> bool:
            with suppress(StorageError):  # the next one may arrive
                self._renew(lease)
            if lease.lost:
                interrupt_work()
            return lease.lost

        try:
            with interruptible(), repeating(renew, RENEW_SECONDS):
                yield
        except BaseException as error:
            if lease.lost:
                raise lease.error() from error
            raise
        finally:
            self._held.remove(lease)
            if not lease.lost:
                self._give_back(lease, once)
        if lease.lost:
            raise lease.error()

    def _renew(self, lease: _Lease) -> None:
        """Show that this process lives, unless somebody else has taken the lease."""
        begun = time.monotonic()
        number, _ = self._newest(lease.name)
        if number > lease.number:
            lease.lost = True
            return
        self._write(lease.name, lease.number, lease.who, time.time() + LEASE_SECONDS)
        lease.renewed = begun

    def _require_leases(self) -> None:
        """Raise LeaseLostError if a lease of this process was taken; those that were not renewed for long are asked."""
        for lease in self._held:
            if time.monotonic() - lease.renewed > 2 * RENEW_SECONDS:
                self._renew(lease)
            if lease.lost:
                raise lease.error()

    def _give_back(self, lease: _Lease, once: bool) -> None:
        if once:
            with self._told(), suppress(FileNotFoundError):
                self._fs.rm_file(self._lease(lease.name, lease.number))
        else:
            self._write(lease.name, lease.number, lease.who, 0.0)

    def _take(self, name: str, what: str, who: str, wait: float | None) -> int:
        until = float("inf") if wait is None else time.monotonic() + wait
        while True:
            number, held = self._newest(name)
            if held and self._is_alive(name, number, held):
                if time.monotonic() >= until:
                    since = f"{held['who']} on {held['host']}"
                    raise LockedError(f"{what} is in use by {since}: wait for it, or cancel it")
                time.sleep(LOOK_SECONDS)
            elif self._write(name, number + 1, who, time.time() + LEASE_SECONDS, create=True):
                for old in range(max(0, number - 1), number + 1):
                    with suppress(FileNotFoundError), self._told():
                        self._fs.rm_file(self._lease(name, old))
                return number + 1

    def _is_alive(self, name: str, number: int, held: dict[str, Any]) -> bool:
        """Whether whoever holds a lease has renewed it in time, both times by the clock of object storage.

        `until` is a time by the holder's clock for earlier versions of the program; 0 says that it was given back.
        """
        if not held["until"]:
            return False
        clock = f"{self._prefix}/leases/.clock"
        with self._told():
            self._fs.pipe_file(clock, b"")
            now = _stamp(self._fs.info(clock))
        try:
            with self._told():
                renewed = _stamp(self._fs.info(self._lease(name, number)))
        except FileNotFoundError:
            return False
        return now - renewed < LEASE_SECONDS

    def _newest(self, name: str) -> tuple[int, dict[str, Any] | None]:
        with self._told():
            keys = self._fs.find(self._lease(name))
        numbers = [int(stem) for key in keys if (stem := Path(key).stem).isdecimal()]
        if not numbers:
            return 0, None
        content = self._read(self._lease(name, max(numbers)))
        return max(numbers), json.loads(content) if content else None

    def _write(self, name: str, number: int, who: str, until: float, create: bool = False) -> bool:
        content = json.dumps({"who": who, "host": gethostname(), "pid": os.getpid(), "until": until}).encode()
        try:
            with self._told():
                self._fs.pipe_file(self._lease(name, number), content, mode="create" if create else "overwrite")
        except FileExistsError:
            return False
        return True

    def _lease(self, name: str, number: int | None = None) -> str:
        folder = f"{self._prefix}/leases/{name}"
        return folder if number is None else f"{folder}/{number:09}.json"

    def _read(self, key: str) -> bytes | None:
        try:
            with self._told():
                return bytes(self._fs.cat_file(key))
        except FileNotFoundError:
            return None

    def _key(self, path: Path) -> str:
        return f"{self._prefix}/{path.relative_to(self._root).as_posix()}"

    def _local(self, key: str) -> Path:
        parts = str(key).removeprefix(f"{self._prefix}/").strip("/").split("/")
        if ".." in parts or "." in parts or "" in parts or "\0" in str(key):
            raise StorageError(f"{key!r} would lie outside of the copy {self._root}: remove the object")
        return self._root.joinpath(*parts)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the libraries behind a URL become ones that say what to do; that something is not there passes."""
        try:
            yield
        except (StorageError, FileExistsError):
            raise
        except Exception as error:  # botocore, aiohttp and their like raise whatever happened to them
            if refused := refusal(self.url, error):
                raise StorageError(refused) from error
            if isinstance(error, FileNotFoundError):
                raise
            raise RemoteError(silence(self.url, error)) from error


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


def _stamp(about: dict[str, Any]) -> float:
    """When an object was last written by the clock of object storage, in seconds, from what fsspec tells of it."""
    names = ("LastModified", "last_modified", "updated", "mtime", "created")  # S3, Azure, Google, others
    stamp = next(about[name] for name in names if about.get(name))
    if isinstance(stamp, str):
        stamp = datetime.fromisoformat(stamp)
    return float(stamp.replace(tzinfo=stamp.tzinfo or UTC).timestamp() if isinstance(stamp, datetime) else stamp)


def _count(content: bytes) -> int:
    try:
        return int(json.loads(content)["at"])
    except (ValueError, KeyError, TypeError):
        return 0
