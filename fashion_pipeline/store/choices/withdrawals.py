"""Photos that were withdrawn: never taken in again, whatever they are called or however they were saved anew.

```
withdrawn.json      id of each → style, path, when; perceptual hash and thumbnail, by which near-duplicates are known
```
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from fashion_pipeline.core.catalog.fingerprints import Fingerprints
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.storage.files import Files, read_json


@dataclass(frozen=True)
class Withdrawn:
    """One photo."""

    id: str
    style: str
    path: str
    """As the catalog listed it."""
    at: str
    """Date and time, ISO 8601, UTC."""
    perceptual_hash: int
    thumbnail: str
    """16 x 16 RGB bytes, in base 64."""


class Withdrawals:
    """The withdrawn photos of a data root."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def all(self) -> list[Withdrawn]:
        """Every withdrawn photo, in the order of withdrawal. Raises StorageError for a damaged file."""
        path = self._files.now(self._files.inside("withdrawn.json"))
        if not path.exists():
            return []
        try:
            return [Withdrawn(**row) for row in read_json(path, "")["photos"]]
        except (KeyError, TypeError) as error:
            raise StorageError(f"{path} is damaged: restore it from a copy, or withdraw its photos again") from error

    def ids(self) -> set[str]:
        """The ids of all of them."""
        return {each.id for each in self.all()}

    def prints(self) -> Fingerprints:
        """Their fingerprints, in the same order."""
        withdrawn = self.all()
        thumbnails = [
            np.frombuffer(base64.b64decode(each.thumbnail), np.uint8).reshape(16, 16, 3) for each in withdrawn
        ]
        return Fingerprints.stack([(each.perceptual_hash, t) for each, t in zip(withdrawn, thumbnails, strict=True)])

    def add(self, style: str, rows: Iterable[Mapping[str, Any]]) -> list[Withdrawn]:
        """Withdraw photos, given as rows of table `images`; returns those that were not withdrawn before."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._files.changing("withdrawn.json"):
            withdrawn = self.all()
            seen = {each.id for each in withdrawn}
            fresh = [_withdrawn(style, row, now) for row in rows if row["id"] not in seen]
            if fresh:
                photos = [asdict(each) for each in [*withdrawn, *fresh]]
                self._files.write_json(self._files.inside("withdrawn.json"), {"photos": photos})
        return fresh


def _withdrawn(style: str, row: Mapping[str, Any], now: str) -> Withdrawn:
    thumbnail = base64.b64encode(row["thumbnail"]).decode()
    return Withdrawn(row["id"], style, row["path"], now, int(row["perceptual_hash"]), thumbnail)
