"""What the Dagster UI shows, and what loading it costs."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from fashion_pipeline.core import tables
from fashion_pipeline.core.evaluation.report import EvaluationReport
from fashion_pipeline.definitions import defs
from fashion_pipeline.defs.automation.jobs import ASSETS, JOBS
from fashion_pipeline.defs.lineage import COLUMNS
from fashion_pipeline.defs.metadata import gains
from fashion_pipeline.defs.styles import styles
from fashion_pipeline.settings import TEMPLATES

SPECS = {spec.key.to_user_string(): spec for asset in ASSETS for spec in asset.specs}

LOAD = """
import sys, fashion_pipeline.definitions
models = {"torch", "diffusers", "transformers", "peft", "accelerate", "matplotlib"}
others = {"pandas", "scipy", "sklearn", "imagehash", "duckdb", "fsspec"}
print(sorted((models | others) & set(sys.modules)))
"""


def test_loading_the_definitions_imports_nothing_that_takes_long(tmp_path: Path) -> None:
    environment = os.environ | {"FASHION_PIPELINE_DATA": str(tmp_path / "data")}
    found = subprocess.run(
        [sys.executable, "-c", LOAD], capture_output=True, text=True, check=True, env=environment, timeout=240
    )
    assert found.stdout.strip() == "[]"
    assert not (tmp_path / "data").exists(), "loading must not write"


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_asset_says_what_it_is_and_who_answers_for_it(name: str) -> None:
    spec = SPECS[name]
    assert spec.group_name and spec.group_name != "default"
    assert spec.owners and spec.kinds
    assert len(spec.description or "") > 30
    assert spec.code_version
    assert spec.partitions_def == styles or spec.partitions_def is None


def test_every_table_shows_its_columns_on_the_page_of_an_asset() -> None:
    shown = [
        tuple((column.name, column.description) for column in schema.columns)
        for spec in SPECS.values()
        for key, schema in spec.metadata.items()
        if key == "dagster/column_schema" or key.startswith("columns of ")
    ]
    for table in tables.TABLES:
        assert tuple((column.name, column.description) for column in tables.columns(table)) in shown, table


def test_every_asset_can_be_launched_and_the_jobs_can_be_resolved() -> None:
    names = {job.name for job in JOBS}
    assert names == {"catalog", "prompt_optimization", "finetuning", "full_pipeline"}
    full = defs.resolve_job_def("full_pipeline")
    assert {key.to_user_string() for key in full.asset_layer.executable_asset_keys} == set(SPECS)


def test_the_definitions_are_consistent() -> None:
    dg.Definitions.validate_loadable(defs)


def test_prompts_can_be_optimised_without_training() -> None:
    keys = {
        key.to_user_string() for key in defs.resolve_job_def("prompt_optimization").asset_layer.executable_asset_keys
    }
    assert "prompt_report" in keys and not {"lora_weights", "published_model"} & keys


def test_the_result_of_a_check_belongs_to_a_style() -> None:
    checks = [check for asset in ASSETS for check in asset.check_specs]
    assert len(checks) > 15 and all(check.partitions_def == styles for check in checks)


def test_a_run_prints_what_it_says_and_not_its_own_events(tmp_path: Path) -> None:
    from dagster._loggers import default_system_loggers

    (tmp_path / "dagster.yaml").write_bytes((TEMPLATES / "dagster.yaml").read_bytes())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        ((_, configuration),) = default_system_loggers(instance)
    assert configuration["log_level"] == "INFO"


def test_gains_are_told_in_words() -> None:
    gain = {"model": "specialised", "prompt": "best", "against": {"model": "original", "prompt": "plain"}}
    gain |= {"measure": "judge", "split": "dev", "mean": -0.1234567, "low": None, "high": None, "n": 3}
    told = str(gains(EvaluationReport.read({"gains": [gain]}))["gains on dev"].value)
    assert "| specialised best | original plain | judge | dev | −0.123 | none | 3 |" in told


def test_every_asset_links_to_the_line_where_it_is_written() -> None:
    for asset in defs.assets or ():
        (spec,) = asset.specs
        (reference,) = spec.metadata["dagster/code_references"].code_references
        line = Path(reference.file_path).read_text(encoding="utf-8").splitlines()[reference.line_number - 1]
        assert line.startswith("@dg.asset") and Path(reference.file_path).parent.name == "assets"


def test_columns_come_from_columns_that_there_are() -> None:
    shown = {
        name: {column.name for column in spec.metadata["dagster/column_schema"].columns}
        for name, spec in SPECS.items()
        if "dagster/column_schema" in spec.metadata
    }
    assert set(COLUMNS) == set(shown) - {"raw_images"}
    for asset, columns in COLUMNS.items():
        assert set(columns) <= shown[asset], asset
        for source in (source for sources in columns.values() for source in sources):
            upstream, column = source.split(".")
            assert column in shown[upstream], source
            assert list(SPECS).index(upstream) < list(SPECS).index(asset), source
