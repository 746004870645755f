"""Looking embeddings up in the feature tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class FeatureIndex:
    """The embeddings of one role (encoder or judge) and one model, by id."""

    def __init__(self, rows: pa.Table, role: str, model: str) -> None:
        """`rows` is a table `features` or `sample_features`; rows of other roles and models are left out."""
        kept = rows.filter((pc.field("role") == role) & (pc.field("model") == model))
        self.role, self.model = role, model
        self._positions = {id_: position for position, id_ in enumerate(kept["id"].to_pylist())}
        flat = np.asarray(kept["embedding"].combine_chunks().flatten().to_numpy(), np.float32)
        self._matrix: NDArray[np.float32] = flat.reshape(kept.num_rows, -1 if len(flat) else 0)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._positions

    def rows(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """(len(ids), d) unit rows. Raises KeyError for an id without an embedding."""
        return np.asarray(self._matrix[np.array([self._positions[id_] for id_ in ids], int)])

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

    def missing(self, ids: Sequence[str]) -> list[str]:
        """The ids that have no embedding yet, each once."""
        return [id_ for id_ in dict.fromkeys(ids) if id_ not in self._positions]


def feature_rows(ids: Sequence[str], role: str, model: str, embeddings: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Rows of a feature table from (len(ids), d) unit rows."""
    return [
        {"id": id_, "role": role, "model": model, "embedding": embedding}
        for id_, embedding in zip(ids, embeddings.astype(np.float32), strict=True)
    ]
