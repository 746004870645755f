"""Embeddings of photos and samples: tables that grow by a file every few seconds of work; what was kept stays.

```
embeddings/<table>/style=<style>/model=<fingerprint>/<hash>.parquet
```
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fashion_pipeline.core.features.embeddings import FeatureIndex, feature_table
from fashion_pipeline.store.errors import DamagedError
from fashion_pipeline.store.storage.files import Files, slug
from fashion_pipeline.store.storage.parquet import read_parquet, row_count, write_parquet

PHOTOS = "features"
"""The table of photos; their ids are hashes of their bytes."""


class Embeddings:
    """One growing table, `features` (of photos) or `sample_features`, of all styles."""

    def __init__(self, files: Files, table: str) -> None:
        self._files, self.table = files, table

    def index(self, style: str, role: str, model: str) -> FeatureIndex:
        """The embeddings that one model made for a style. A damaged file is removed: they are computed again.

        Raises NewerVersionError for a file that a later version of the program wrote, StorageError for one that cannot
        be read.
        """
        paths = [self._files.here(path) for path in self._files.glob(self._folder(style, model), "*.parquet")]
        return FeatureIndex(self._readable(paths), role, model, most=sum(map(row_count, paths)))

    def _readable(self, paths: Sequence[Path]) -> Iterator[pa.Table]:
        for path in paths:
            try:
                yield read_parquet(self.table, path, "it is computed again")
            except DamagedError:
                self._files.remove(path)

    def add(self, style: str, role: str, model: str, ids: Sequence[str], rows: NDArray[np.float32]) -> None:
        """Keep (len(ids), d) unit rows, in a file of their own that appears whole."""
        name = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
        table = feature_table(self.table, ids, role, model, rows)
        path = self._folder(style, model) / f"{role}-{name}.parquet"
        self._files.place(path, lambda temporary: write_parquet(self.table, table, temporary))

    def paths(self, styles: Iterable[str]) -> list[Path]:
        """The files of some styles; not all of them need to be on this machine."""
        folder = self._files.inside("embeddings", self.table)
        patterns = [f"style={slug(style)}/*/*.parquet" for style in styles]
        return [path for pattern in patterns for path in self._files.glob(folder, pattern)]

    def styles(self) -> list[str]:
        """The styles that have embeddings."""
        folders = self._files.glob(self._files.inside("embeddings", self.table), "style=*")
        return sorted(folder.name.removeprefix("style=") for folder in folders)

    def _folder(self, style: str, model: str) -> Path:
        return self._files.inside("embeddings", self.table, f"style={slug(style)}", f"model={model}")
