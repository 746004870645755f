"""What a base draws from prompts in few steps, by what one encoder sees in it: kept once, for all styles.

```
looks/<generator>/<encoder>/<how it is drawn>/<hash>.parquet
```
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fashion_pipeline.core.features.embeddings import matrix_of
from fashion_pipeline.store.errors import DamagedError
from fashion_pipeline.store.storage.files import Files
from fashion_pipeline.store.storage.parquet import read_parquet, write_parquet

LOOKS = "looks"


@dataclass(frozen=True)
class LookDrawing:
    """How looks are drawn: other numbers give other images."""

    generator: str
    """Fingerprint."""
    encoder: str
    """Fingerprint."""
    steps: int
    guidance: float
    side: int
    """Pixels."""


@dataclass(frozen=True)
class LookAt:
    """A prompt, and the number of images it was drawn as, with the first so many of the common seeds."""

    prompt: str
    negative_prompt: str
    images: int


class Looks:
    """The looks of a data root; those that ship with a profile's models are read with them."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def read(self, drawn: LookDrawing, shipped: Path | None = None) -> dict[LookAt, NDArray[np.float32]]:
        """Look → (d,) mean embedding. A damaged file is removed: its looks are drawn again.

        `shipped` is a folder of looks, laid out as in a data root.
        """
        known: dict[LookAt, NDArray[np.float32]] = {}
        for path in self._paths(drawn, shipped):
            try:
                rows = read_parquet(LOOKS, path, "it is drawn again", _KEYS)
            except DamagedError:
                if shipped is not None and shipped in path.parents:
                    raise
                self._files.remove(path)
                continue
            keys = zip(*(rows[name].to_pylist() for name in _KEYS[:3]), strict=True)
            known |= zip((LookAt(*key) for key in keys), matrix_of(rows["embedding"]), strict=True)
        return known

    def thumbnails(self, drawn: LookDrawing, prompts: Sequence[str], shipped: Path | None = None) -> dict[str, bytes]:
        """Prompt → its first image as WebP, of those prompts that were looked at without a negative prompt."""
        wanted = set(prompts)
        return {
            row["prompt"]: row["thumbnail"]
            for path in self._paths(drawn, shipped)
            for row in read_parquet(LOOKS, path, "it is drawn again", _THUMBNAILS).to_pylist()
            if row["thumbnail"] and row["prompt"] in wanted and not row["negative_prompt"]
        }

    def add(
        self, drawn: LookDrawing, rows: Mapping[LookAt, NDArray[np.float32]], thumbnails: Mapping[str, bytes]
    ) -> None:
        """Keep looks, in a file of their own that appears whole. `thumbnails` are those of prompts seen first."""
        fewest = {key.prompt: key for key in sorted(rows, key=lambda key: -key.images) if not key.negative_prompt}
        table = [
            {
                "prompt": key.prompt,
                "negative_prompt": key.negative_prompt,
                "images": key.images,
                "embedding": row.tolist(),
                "thumbnail": thumbnails.get(key.prompt) if fewest.get(key.prompt) == key else None,
            }
            for key, row in rows.items()
        ]
        name = hashlib.sha256("\n".join(map(repr, rows)).encode()).hexdigest()[:16]
        path = self._files.inside(LOOKS, *_parts(drawn)) / f"{name}.parquet"
        self._files.place(path, lambda temporary: write_parquet(LOOKS, table, temporary))

    def _paths(self, drawn: LookDrawing, shipped: Path | None) -> list[Path]:
        folder = self._files.inside(LOOKS, *_parts(drawn))
        own = [self._files.here(path) for path in self._files.glob(folder, "*.parquet")]
        return own + (sorted(shipped.joinpath(*_parts(drawn)).glob("*.parquet")) if shipped else [])


_KEYS = ("prompt", "negative_prompt", "images", "embedding")
_THUMBNAILS = ("prompt", "negative_prompt", "thumbnail")


def _parts(drawn: LookDrawing) -> tuple[str, str, str]:
    return drawn.generator, drawn.encoder, f"{drawn.steps}-steps-{drawn.guidance:g}-{drawn.side}"
