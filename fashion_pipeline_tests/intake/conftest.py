"""A manifest of product photos."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fashion_pipeline_tests.intake.planting import HEADER, save_photos


@pytest.fixture
def products(tmp_path: Path) -> Callable[[list[str]], Path]:
    """Write styles.csv with the given rows and a photo for each of the ids 0 to 11."""

    def write(rows: list[str]) -> Path:
        save_photos(tmp_path / "images", range(12), "jpg")
        for path in (tmp_path / "images").iterdir():
            path.rename(path.with_name(f"{int(path.stem)}.jpg"))
        (tmp_path / "styles.csv").write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
        return tmp_path

    return write
