"""The product photos as arrays: the cache that training reads, and who may see which photo."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGE_SIZE = 64
LARGE_SIZE = 80
ATTRIBUTES = ("gender", "articleType", "baseColour", "season", "usage")
RESERVED_STYLE = "Ethnic"


@dataclass(frozen=True)
class Photos:
    """`small` (n, 64, 64, 3) and `large` (n, 80, 80, 3) uint8, and one row of text a photo in each column."""

    ids: np.ndarray
    small: np.ndarray
    large: np.ndarray
    columns: dict[str, np.ndarray]
    split: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, mask: np.ndarray) -> "Photos":
        """The photos for which `mask` (n,) bool is true, in their order."""
        columns = {name: values[mask] for name, values in self.columns.items()}
        return Photos(self.ids[mask], self.small[mask], self.large[mask], columns, self.split[mask])


def load_photos(cache: Path) -> Photos:
    """Read what prepare_photos.py wrote."""
    if not cache.is_file():
        raise FileNotFoundError(f"no photo cache at {cache}: run python -m tools.embedded_models.prepare_photos first")
    with np.load(cache, allow_pickle=False) as stored:
        columns = {name: stored[name] for name in ATTRIBUTES}
        return Photos(stored["ids"], stored["small"], stored["large"], columns, stored["split"])


def seen_by_encoders(photos: Photos) -> np.ndarray:
    """(n,) bool: encoder and judge learn from every photo that is neither held out nor bridges two splits."""
    return np.isin(photos.split, ("search", "dev"))


def seen_by_generator(photos: Photos) -> np.ndarray:
    """(n,) bool: as for the encoders, without the style that fine-tuning will have to teach."""
    return seen_by_encoders(photos) & (photos.columns["usage"] != RESERVED_STYLE)


def held_out(photos: Photos) -> np.ndarray:
    """(n,) bool: the catalog's test split, which no embedded model learns from."""
    return photos.split == "test"
