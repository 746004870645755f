"""The whole chain on real photos, small: two sample styles of 48 photos, the embedded models, a few steps."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import Result

from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.defs.automation.jobs import ASSETS, BY_HAND, CATALOG
from fashion_pipeline.intake.sources import read_source
from fashion_pipeline.resources.gpu import Gpu
from fashion_pipeline.resources.models import ModelsResource
from fashion_pipeline.resources.store import StoreResource
from fashion_pipeline.settings import PACKAGE, PROFILES
from fashion_pipeline.stages.catalog.sources import take_in
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.store import Store

os.environ.setdefault("COLUMNS", "160")  # where no terminal says how wide it is
os.environ.setdefault("OMP_NUM_THREADS", "1")  # `make test` lets two tests run at a time

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
PHOTOS = 48
STYLES = ("bag", "coat")
SMALL = {
    "ops": {
        "generated_samples": {"config": {"budget": 64, "held_out_products": 3}},
        "lora_weights": {"config": {"steps": 6}},
        "evaluation_report": {"config": {"products": 3}},
    }
}


@dataclass
class Chain:
    """A data root with two styles, and what running on it came to."""

    store: Store
    models: Models
    instance: dg.DagsterInstance

    def materialize(self, assets: Any, style: str, config: Any = None) -> dg.ExecuteInProcessResult:
        """Run assets for a style; errors are in the result, not raised."""
        return dg.materialize(
            [*ASSETS, *BY_HAND],
            selection=dg.AssetSelection.assets(*assets),
            partition_key=style,
            instance=self.instance,
            resources={
                "store": StoreResource(root=str(self.store.root)),
                "models": self.models_resource(),
            },
            run_config=config,
            raise_on_error=False,
        )

    def models_resource(self) -> ModelsResource:
        """What lends the models to the assets."""
        return ModelsResource(profile=self.models.profile_name, gpu=Gpu(), root=str(self.store.root))


QUICK = Path(tempfile.mkdtemp(prefix="fashion-pipeline-tests-"))
"""A profile that draws in fewer steps, and how this machine computes fastest: both the same for all data roots."""

atexit.register(shutil.rmtree, QUICK, ignore_errors=True)


def quick_profile() -> str:
    """The embedded models, drawing in a third of the steps."""
    file = QUICK / "quick.toml"
    if not file.exists():
        text = (PROFILES / "embedded.toml").read_text(encoding="utf-8").replace("../embedded", f"{PACKAGE}/embedded")
        file.write_text(text.replace("steps = 15", "steps = 5").replace("batch_size = 16", "batch_size = 8"))
    return str(file)


def make_chain(root: Path, source: Path, profile: str | None = None) -> Chain:
    """A data root with the styles of a source."""
    profile = profile or quick_profile()
    (QUICK / "machine").mkdir(exist_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "machine").exists():
        (root / "machine").symlink_to(QUICK / "machine")
    chain = Chain(Store(root), Models(profile, machine=root / "machine"), dg.DagsterInstance.ephemeral())
    spec = SourceSpec(str(source))
    chain.instance.add_dynamic_partitions("styles", take_in(chain.store, spec, read_source(spec)))
    return chain


def errors(result: dg.ExecuteInProcessResult) -> list[str]:
    """What the steps that failed said."""
    found = [e.step_failure_data.error for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    return [(error.cause or error).message for error in found]


def assert_one_message(result: Result, *parts: str) -> None:
    """A command ended with one line that says what is wrong, and exit code 1."""
    assert result.exit_code == 1, result.output
    assert result.output.count("error:") == 1 and "Traceback" not in result.output
    assert len(result.output.strip().splitlines()) == 1
    for part in parts:
        assert part in result.output


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    root = tmp_path_factory.mktemp("chain")
    for style in STYLES:
        (root / "photos" / style).mkdir(parents=True)
        for photo in sorted((SAMPLES / style).glob("*.png"))[:PHOTOS]:
            shutil.copy(photo, root / "photos" / style)
    yield make_chain(root / "data", root / "photos")


@pytest.fixture(scope="session")
def described(chain: Chain) -> Chain:
    """Both styles have catalog and features."""
    for style in STYLES:
        assert chain.materialize(CATALOG, style).success
    return chain


@pytest.fixture(scope="session")
def full_run(described: Chain) -> dg.ExecuteInProcessResult:
    """The first full run for coats."""
    return described.materialize(ASSETS, "coat", SMALL)


@pytest.fixture(scope="session")
def second_run(described: Chain, full_run: dg.ExecuteInProcessResult) -> dg.ExecuteInProcessResult:
    """The same again, with nothing new."""
    assert full_run.success
    return described.materialize(ASSETS, "coat", SMALL)


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
