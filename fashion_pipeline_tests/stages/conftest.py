"""A small style of its own for tests that break something."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fashion_pipeline_tests.conftest import SAMPLES, Chain, make_chain


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Chain]:
    """A function that makes a data root with a few coats, and other styles if asked."""

    def make(photos: int = 20, *others: str) -> Chain:
        for style in ("coat", *others):
            (tmp_path / "photos" / style).mkdir(parents=True)
            for photo in sorted((SAMPLES / style).glob("*.png"))[:photos]:
                shutil.copy(photo, tmp_path / "photos" / style)
        return make_chain(tmp_path / "data", tmp_path / "photos")

    return make
