"""The mistakes of `tools/mistakes.toml` can be planted in the code as it is."""

from pathlib import Path

import pytest

import fashion_pipeline
from tools.plant_mutations import Mutation, mutations, planted

PACKAGE = Path(fashion_pipeline.__file__).parent


@pytest.mark.parametrize("mistake", mutations(), ids=lambda mistake: mistake.name)
def test_a_mistake_can_be_planted(mistake: Mutation) -> None:
    right = (PACKAGE / mistake.file).read_text(encoding="utf-8")
    assert planted(right, mistake) != right
    for test in mistake.tests:
        assert (Path(__file__).parent / test).exists()
