"""An empty data root for each test of the command."""

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fashion_pipeline.cli import app
from fashion_pipeline.settings import Settings


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root; what the command puts into the environment is taken back."""
    for name, value in Settings(tmp_path / "data", "embedded", "auto", "auto").environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "data"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def photos_of(root: Path, *styles: str) -> Path:
    for style in styles:
        (root / style).mkdir(parents=True)
        (root / style / "a.png").write_bytes(b"x")
    return root
