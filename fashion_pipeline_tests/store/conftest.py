"""An empty data root."""

from pathlib import Path

import pytest

from fashion_pipeline.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")
