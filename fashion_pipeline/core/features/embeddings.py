"""Looking embeddings up in the feature tables."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fashion_pipeline.core.tables import schema


class FeatureIndex:
    """The embeddings of one role (encoder or judge) and one model, by id."""

    def __init__(self, parts: pa.Table | Iterable[pa.Table], role: str, model: str, most: int = 0) -> None:
        """`parts` are a table `features` or `sample_features`, or pieces of one.

        Rows of other roles and models are left out. With `most`, the number of rows at most, they take memory once:
        pieces are copied as they come.
        """
        self.role, self.model = role, model
        self._positions: dict[str, int] = {}
        self._matrix: NDArray[np.float32] = np.empty((0, 0), np.float32)
        filled = 0
        for part in [parts] if isinstance(parts, pa.Table) else parts:
            is_wanted = pc.and_(pc.equal(part["role"], role), pc.equal(part["model"], model))
            kept = part if pc.all(is_wanted, min_count=0).as_py() else part.filter(is_wanted)
            rows = matrix_of(kept["embedding"])
            if filled + len(rows) > len(self._matrix):
                larger = np.empty((max(most, filled + len(rows)), rows.shape[1]), np.float32)
                if filled:
                    larger[:filled] = self._matrix[:filled]
                self._matrix = larger
            if len(rows):
                self._matrix[filled : filled + len(rows)] = rows
                self._positions |= zip(kept["id"].to_pylist(), range(filled, filled + len(rows)), strict=True)
                filled += len(rows)
        self._matrix = self._matrix[:filled]

    def __contains__(self, id_: str) -> bool:
        return id_ in self._positions

    def rows(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """(len(ids), d) unit rows. Raises KeyError for an id without an embedding."""
        return np.asarray(self._matrix[self.positions(ids)])

    def positions(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """The places of some ids, for `at`. Raises KeyError for an id without an embedding."""
        return np.fromiter((self._positions[id_] for id_ in ids), np.int64)

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """(len(positions), d) unit rows."""
        return np.asarray(self._matrix[positions])

    def extended(self, ids: Sequence[str], rows: NDArray[np.float32]) -> "FeatureIndex":
        """These embeddings and (len(ids), d) further ones."""
        whole = FeatureIndex.__new__(FeatureIndex)
        whole.role, whole.model = self.role, self.model
        whole._positions = self._positions | {id_: len(self._matrix) + k for k, id_ in enumerate(ids)}
        whole._matrix = np.concatenate([self._matrix, rows]) if len(self._matrix) else rows.astype(np.float32)
        return whole

    def known(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """(k, d) unit rows of those of the ids that have an embedding."""
        return self.rows([id_ for id_ in ids if id_ in self._positions])

    def missing(self, ids: Iterable[str]) -> list[str]:
        """The ids that have no embedding yet, each once."""
        return [id_ for id_ in dict.fromkeys(ids) if id_ not in self._positions]


def matrix_of(embeddings: pa.ChunkedArray) -> NDArray[np.float32]:
    """n lists of d numbers → (n, d)."""
    flat = np.asarray(embeddings.combine_chunks().flatten().to_numpy(), np.float32)
    return flat.reshape(len(embeddings), -1 if len(flat) else 0)


def feature_table(table: str, ids: Sequence[str], role: str, model: str, embeddings: NDArray[np.float32]) -> pa.Table:
    """Table `features` or `sample_features` of (len(ids), d) unit rows."""
    count, side = embeddings.shape
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(count + 1, dtype=np.int32) * side), pa.array(embeddings.astype(np.float32).ravel())
    )
    columns = [pa.array(ids, pa.string()), pa.array([role] * count), pa.array([model] * count), lists]
    return pa.table(columns, names=["id", "role", "model", "embedding"]).cast(schema(table))
