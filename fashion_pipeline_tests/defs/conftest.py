"""The whole chain on real photos, small: two sample styles of 48 photos, the embedded models, a few steps."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fashion_pipeline.core.listing import SourceSpec
from fashion_pipeline.core.sources import read_source
from fashion_pipeline.defs.intake import take_in
from fashion_pipeline.defs.jobs import ASSETS, CATALOG
from fashion_pipeline.resources.gpu import Gpu
from fashion_pipeline.resources.models import Models
from fashion_pipeline.resources.storage import Storage

SAMPLES = Path(__file__).parents[2] / "data" / "samples"
PHOTOS = 48
STYLES = ("bag", "coat")
SMALL = {
    "ops": {
        "generated_samples": {"config": {"budget": 16, "held_out_products": 3}},
        "lora_weights": {"config": {"steps": 6}},
        "evaluation_report": {"config": {"products": 3}},
    }
}


@dataclass
class Chain:
    """A data root with two styles, and what running on it came to."""

    storage: Storage
    models: Models
    instance: dg.DagsterInstance

    def materialize(self, assets: Any, style: str, config: Any = None) -> dg.ExecuteInProcessResult:
        """Run assets for a style; errors are in the result, not raised."""
        return dg.materialize(
            list(ASSETS),
            selection=dg.AssetSelection.assets(*assets),
            partition_key=style,
            instance=self.instance,
            resources={"storage": self.storage, "models": self.models},
            run_config=config,
            raise_on_error=False,
        )


def make_chain(root: Path, source: Path) -> Chain:
    gpu = Gpu()
    chain = Chain(Storage(root=str(root)), Models(profile="embedded", gpu=gpu), dg.DagsterInstance.ephemeral())
    spec = SourceSpec(str(source))
    chain.instance.add_dynamic_partitions("styles", take_in(chain.storage, spec, read_source(spec)))
    return chain


@pytest.fixture(scope="package")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    root = tmp_path_factory.mktemp("chain")
    for style in STYLES:
        (root / "photos" / style).mkdir(parents=True)
        for photo in sorted((SAMPLES / style).glob("*.png"))[:PHOTOS]:
            shutil.copy(photo, root / "photos" / style)
    yield make_chain(root / "data", root / "photos")


@pytest.fixture(scope="package")
def described(chain: Chain) -> Chain:
    """Both styles have catalog and features."""
    for style in STYLES:
        assert chain.materialize(CATALOG, style).success
    return chain


@pytest.fixture(scope="package")
def full_run(described: Chain) -> dg.ExecuteInProcessResult:
    """The first full run for coats."""
    return described.materialize(ASSETS, "coat", SMALL)


@pytest.fixture(scope="package")
def second_run(described: Chain, full_run: dg.ExecuteInProcessResult) -> dg.ExecuteInProcessResult:
    """The same again, with nothing new."""
    assert full_run.success
    return described.materialize(ASSETS, "coat", SMALL)
