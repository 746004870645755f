"""The whole chain on a Ray cluster of two nodes, and with its data root on S3: the same records and weights."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fashion_pipeline.defs.automation.jobs import CATALOG, FINETUNING, PROMPTS
from fashion_pipeline.resources.gpu import Gpu
from fashion_pipeline.resources.models import ModelsResource
from fashion_pipeline.stages.drawing.on_ray import OnRay
from fashion_pipeline.store.records import KINDS
from fashion_pipeline_tests.conftest import SAMPLES, SMALL, Chain, errors, make_chain

pytestmark = pytest.mark.thorough

ALL = [*CATALOG, *PROMPTS, *FINETUNING]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    shutil.copytree(SAMPLES / "coat", root / "coat", ignore=lambda _, names: sorted(names)[20:])
    return root


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """In one process, on local disk."""
    chain = make_chain(tmp_path_factory.mktemp("alone"), photos)
    result = chain.materialize(ALL, "coat", SMALL)
    assert result.success, errors(result)
    return chain


def require_same(one: Chain, other: Chain) -> None:
    """All records by their content, the weights and everything else by SHA-256, the images by their bytes."""
    for kind in KINDS:
        a, b = (each.store.records.latest(kind, "coat") for each in (one, other))
        assert a.key == b.key, kind
        clocks = ("result.json", "report.html", "report.json")  # tell when, and how long it took
        files = [{k: v for k, v in each.checksums.items() if k not in clocks} for each in (a, b)]
        assert files[0] == files[1], kind
    weights = [each.store.records.latest("training", "coat").checksums for each in (one, other)]
    assert sum(name.endswith(".safetensors") for name in weights[0]) >= 2
    images = [
        {path.name: each.store.files.here(path).read_bytes() for path in each.store.samples.all()}
        for each in (one, other)
    ]
    assert images[0] == images[1] and len(images[0]) > 40


@dataclass
class Spread(Chain):
    """A chain that embeds and draws on a cluster."""

    address: str = ""

    def models_resource(self) -> ModelsResource:
        from fashion_pipeline.resources.ray import Cluster, RayModelsResource

        own = {"profile": self.models.profile_name, "gpu": Gpu(), "root": str(self.store.root)}
        return RayModelsResource(**own, cluster=Cluster.at(self.address))


def test_on_a_cluster_of_two_nodes(alone: Chain, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    from fashion_pipeline_tests.stages.drawing.nodes import two_nodes

    pieces: list[int] = []
    stream = OnRay.stream
    monkeypatch.setattr(OnRay, "stream", lambda self, ask, given: pieces.append(len(given)) or stream(self, ask, given))
    made = make_chain(tmp_path, photos)
    with two_nodes() as nodes:
        chain = Spread(made.store, made.models, made.instance, nodes.address)
        result = chain.materialize(ALL, "coat", SMALL)
        assert result.success, errors(result)
        assert sum(pieces) > 20 and not ray.is_initialized()
    require_same(alone, chain)


@pytest.fixture
def on_s3() -> Iterator[None]:
    pytest.importorskip("moto", reason="moto is not installed")
    from fashion_pipeline_tests.store.buckets import bucket

    with bucket():
        yield


def test_on_s3_each_step_on_a_machine_of_its_own_and_then_all_on_another(
    alone: Chain, photos: Path, tmp_path: Path, on_s3: None
) -> None:
    from fashion_pipeline_tests.store.buckets import settings_of

    for asset in ALL[:-1]:  # of the last one, which has no partitions, nothing is left
        shutil.rmtree(tmp_path / "first", ignore_errors=True)
        first = make_chain(settings_of(tmp_path / "first").data, photos)
        own = {name: config for name, config in SMALL["ops"].items() if name == asset.op.name}
        result = first.materialize([asset], "coat", {"ops": own})
        assert result.success, errors(result)
    require_same(alone, first)

    shutil.rmtree(tmp_path / "first")
    second = make_chain(settings_of(tmp_path / "second").data, photos)
    result = second.materialize(ALL, "coat", SMALL)
    assert result.success, errors(result)
    require_same(alone, second)
    found = {event.step_key: event for event in result.get_asset_materialization_events()}
    done = {
        name: found[name].materialization.metadata for name in ("clip_features", "generated_samples", "lora_weights")
    }
    assert done["clip_features"]["embeddings computed"].value == 0
    assert done["generated_samples"]["images drawn"].value == 0 and done["lora_weights"]["steps run"].value == 0
    rows = second.store.sql("select count(*) n from samples").to_pylist()
    assert rows == alone.store.sql("select count(*) n from samples").to_pylist()
