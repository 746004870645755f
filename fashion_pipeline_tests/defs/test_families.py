"""A base of another family through the whole chain in Dagster: untrained, so nothing is published."""

import shutil
from pathlib import Path

import pytest

from fashion_pipeline.core.names import EXPORT_VERIFICATION, KOHYA_LORA_WEIGHTS, LORA_WEIGHTS, PIPELINE
from fashion_pipeline.defs.automation.jobs import ASSETS
from fashion_pipeline.settings import PACKAGE, PROFILES
from fashion_pipeline_tests.conftest import SAMPLES, SMALL, errors, make_chain

VOCABULARY = """
[garment]
"Coats" = ["coat"]
"Dresses" = ["dress"]
[colour]
"Black" = ["black"]
"White" = ["white"]
"""


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux2", "z_image"])
def test_a_base_of_another_family_goes_through_the_whole_chain(tmp_path: Path, name: str) -> None:
    from fashion_pipeline_tests.ml import tiny

    base = getattr(tiny, name)(tmp_path / "base")
    text = (PROFILES / "embedded.toml").read_text(encoding="utf-8")
    text = text.replace('"../embedded/generator"', f'"{base}"').replace('shipped = "../embedded/looks"\n', "")
    text = text.replace('"../embedded/vocabulary.toml"', '"./vocabulary.toml"')
    text = text.replace("../embedded", f"{PACKAGE}/embedded").replace("steps = 15", "steps = 2")
    text = text.replace("steps = 5", "steps = 1").replace("[training]", "[training]\nresolution = 64")
    (tmp_path / "tiny.toml").write_text(text)
    (tmp_path / "vocabulary.toml").write_text(VOCABULARY)
    (tmp_path / "photos" / "coat").mkdir(parents=True)
    for photo in sorted((SAMPLES / "coat").glob("*.png"))[:40]:
        shutil.copy(photo, tmp_path / "photos" / "coat")
    chain = make_chain(tmp_path / "data", tmp_path / "photos", str(tmp_path / "tiny.toml"))
    result = chain.materialize(ASSETS, "coat", SMALL)
    assert result.success, errors(result)
    records = chain.store.records
    assert records.latest("search", "coat").table("explored").num_rows >= 4
    assert {LORA_WEIGHTS, KOHYA_LORA_WEIGHTS} <= {
        each.name for each in records.latest("training", "coat").folder.iterdir()
    }
    model = records.latest("model", "coat")
    assert model.json(EXPORT_VERIFICATION)["effect"] > 0 and (model.folder / PIPELINE / "model_index.json").is_file()
    assert records.latest("evaluation", "coat") and chain.store.versions.champion("coat") is None
