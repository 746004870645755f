"""On a Ray cluster of two nodes, which are processes here, everything comes out as in one process, bit for bit."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

from ray.cluster_utils import Cluster as Nodes  # noqa: E402

from fashion_pipeline.core.names import TRAINING_OUTCOME  # noqa: E402
from fashion_pipeline.core.prompts.requests import Request  # noqa: E402
from fashion_pipeline.diagnosis import examine  # noqa: E402
from fashion_pipeline.intake.photos import PhotoError  # noqa: E402
from fashion_pipeline.ml.training.results import TrainingResult  # noqa: E402
from fashion_pipeline.settings import read_settings  # noqa: E402
from fashion_pipeline.stages.drawing import on_ray  # noqa: E402
from fashion_pipeline.stages.drawing.drawing import Embedder  # noqa: E402
from fashion_pipeline.stages.drawing.models import Models  # noqa: E402
from fashion_pipeline.stages.drawing.on_ray import OnRay, Worker  # noqa: E402
from fashion_pipeline.stages.drawing.workers import Picture, Pipeline, embed_here  # noqa: E402
from fashion_pipeline.stages.training.process import command  # noqa: E402
from fashion_pipeline.store.store import Store  # noqa: E402
from fashion_pipeline_tests.conftest import QUICK, SAMPLES, quick_profile  # noqa: E402
from fashion_pipeline_tests.stages.drawing.counted import Counted, log_of  # noqa: E402
from fashion_pipeline_tests.stages.drawing.nodes import MEMORY, two_nodes  # noqa: E402
from fashion_pipeline_tests.stages.training.test_process import order  # noqa: E402

pytestmark = pytest.mark.thorough

REQUESTS = [Request("a coat", seed=seed, steps=5, guidance=3.0, width=64, height=64) for seed in range(44)]
PHOTOS = sorted((SAMPLES / "coat").glob("*.png"))[:48]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with two_nodes() as cluster:
        yield cluster


@pytest.fixture
def connected(nodes: Nodes) -> Iterator[Nodes]:
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """How this machine computes fastest, as all tests have it; what is beside it is this test's."""
    (tmp_path / "machine").symlink_to(QUICK / "machine")
    (QUICK / "machine").mkdir(exist_ok=True)
    return tmp_path / "machine"


def pieces(size: int = 8) -> list[list[Picture]]:
    pictures = [Picture(str(number), str(path), 224, photo=False) for number, path in enumerate(PHOTOS)]
    return [pictures[start : start + size] for start in range(0, len(pictures), size)]


def test_images_and_embeddings_are_those_of_this_process(connected: Nodes, machine: Path) -> None:
    models, spread = Models(quick_profile(), machine=machine), OnRay(quick_profile(), machine=machine)
    with models.encoder() as encoder:
        here = dict(embed_here(encoder, pieces()))
    there = dict(spread.embed("encoder", pieces()))
    assert sorted(there) == sorted(here) and all((there[number] == here[number]).all() for number in here)
    assert len({node["NodeID"] for node in ray.nodes() if node["Alive"]}) == 2
    with models.generator() as generator:
        own = {each.index: each for each in generator.draw(REQUESTS)}
        painter = spread.image_generator(Pipeline())
        assert painter.identity() == generator.identity()
    drawn = {each.index: each for each in painter.draw(REQUESTS)}
    assert sorted(drawn) == list(range(len(REQUESTS)))
    for index, each in drawn.items():
        assert each.id == own[index].id and each.image.tobytes() == own[index].image.tobytes()


def test_a_node_fetches_samples_that_are_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("moto", reason="moto is not installed")
    from fashion_pipeline_tests.store.buckets import ROOT, bucket, settings_of

    with bucket():
        monkeypatch.setenv("FASHION_PIPELINE_DATA", ROOT)
        monkeypatch.setenv("FASHION_PIPELINE_COPY", str(tmp_path / "copy"))
        store = Store(settings_of(tmp_path / "copy").data)
        store.samples.write("ab12", Image.new("RGB", (64, 64), "red"))
        location = store.samples.path("ab12")
        location.unlink()
        picture = Picture("ab12", str(location), 64, photo=False)
        number, rows = Worker(Models("embedded")).embed(3, "encoder", [picture])
    assert number == 3 and not isinstance(rows, str) and rows.shape[0] == 1 and location.exists()


def test_workers_that_were_released_come_again(connected: Nodes, machine: Path) -> None:
    spread = OnRay(quick_profile(), machine=machine)
    first = dict(spread.embed("judge", pieces()[:2]))
    spread.release()
    while ray.available_resources().get("CPU", 0) < 2:
        time.sleep(0.1)
    again = dict(spread.embed("judge", pieces()[:2]))
    assert all((first[number] == again[number]).all() for number in first)


def killing(log: Path, after: int) -> threading.Thread:
    """Kills the worker that is at work when some pieces are done."""

    def kill() -> None:
        while True:
            lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
            ended = {(number, process) for what, number, process in lines if what == "ends"}
            working = [each[1:] for each in lines if each[0] == "begins" and tuple(each[1:]) not in ended]
            if len(ended) >= after and working:
                os.kill(int(working[-1][1]), signal.SIGKILL)
                log.with_name("killed.txt").write_text(working[-1][0])
                return
            time.sleep(0.02)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def counts(log: Path) -> tuple[Counter[str], Counter[str]]:
    """How often each piece was begun and ended."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return tuple(Counter(number for what, number, _ in lines if what == kind) for kind in ("begins", "ends"))  # type: ignore[return-value]


def require_once(pieces: range, begun: Counter[str], ended: Counter[str], killed: str) -> None:
    """Each piece was begun once, but the killed one twice; its first worker may have been about to tell of its end."""
    once = Counter(map(str, pieces))
    assert begun == once + Counter([killed]) and once <= ended <= begun


def test_a_killed_worker_costs_the_piece_that_it_was_at(
    connected: Nodes, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "Worker", Counted)
    models, spread = Models(quick_profile(), machine=machine), OnRay(quick_profile(), machine=machine)
    list(spread.embed("encoder", pieces()[:2]))  # so that both workers are there
    log = log_of(machine)
    log.unlink()
    thread = killing(log, after=3)
    found = dict(spread.embed("encoder", pieces(4)))
    thread.join(timeout=10)
    with models.encoder() as encoder:
        assert all((rows == found[number]).all() for number, rows in embed_here(encoder, pieces(4)))
    begun, ended = counts(log)
    killed = (tmp_path / "killed.txt").read_text()
    require_once(range(12), begun, ended, killed)

    log.unlink()
    thread = killing(log, after=2)
    drawn = {each.index: each.image.tobytes() for each in spread.image_generator(Pipeline()).draw(REQUESTS)}
    thread.join(timeout=10)
    with models.generator() as generator:
        assert drawn == {each.index: each.image.tobytes() for each in generator.draw(REQUESTS)}
    begun, ended = counts(log)
    killed = (tmp_path / "killed.txt").read_text()
    require_once(range(6), begun, ended, killed)


def until_processors(count: int) -> None:
    """Wait until the cluster has noticed which nodes are gone."""
    until = time.monotonic() + 60
    while ray.cluster_resources()["CPU"] != count:
        assert time.monotonic() < until, ray.cluster_resources()
        time.sleep(0.2)


def test_a_node_that_is_lost_leaves_its_work_to_the_others(
    connected: Nodes, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "Worker", Counted)
    third = connected.add_node(num_cpus=1, object_store_memory=MEMORY)
    connected.wait_for_nodes()
    spread = OnRay(quick_profile(), machine=machine, workers=3)
    store = Store(machine.with_name("data"))
    with Models(quick_profile(), machine=machine).encoder() as encoder:
        embedder = Embedder(store.sample_features, "coat", "encoder", encoder, lambda text: None, spread)
        monkeypatch.setattr("fashion_pipeline.stages.drawing.drawing.CHUNK", 2)
        lost = threading.Timer(1.0, lambda: connected.remove_node(third, allow_graceful=False))
        list(spread.embed("encoder", pieces(1)[:3]))  # so that all three are there
        lost.start()
        index = embedder.embed(map(str, range(len(PHOTOS))), lambda id_: str(PHOTOS[int(id_)]))
        lost.join()
        until_processors(2)
        ((_, rows),) = embed_here(encoder, [pieces(len(PHOTOS))[0]])
    assert not index.missing(map(str, range(len(PHOTOS))))
    assert np.abs(index.rows([str(number) for number in range(len(PHOTOS))]) - rows).max() < 1e-5
    kept = Store(machine.with_name("data")).sample_features.index("coat", "encoder", encoder.fingerprint)
    assert not kept.missing(map(str, range(len(PHOTOS))))


def test_a_photo_that_has_gone_is_named(connected: Nodes, machine: Path) -> None:
    gone = [Picture("x", "/nowhere/coat.png", 224, photo=True)]
    with pytest.raises(PhotoError, match=r"/nowhere/coat\.png: .*materialise raw_images again"):
        dict(OnRay(quick_profile(), machine=machine).embed("judge", [*pieces()[:1], gone]))


def test_nothing_of_ray_is_imported_where_no_cluster_is_named(tmp_path: Path) -> None:
    code = (
        "import sys, fashion_pipeline.definitions as d\n"
        "print('ray' in sys.modules, type(d.defs.resources['models']).__name__)"
    )

    def told(ray_: str) -> str:
        environment = {**os.environ, "FASHION_PIPELINE_DATA": str(tmp_path), "FASHION_PIPELINE_RAY": ray_}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        return done.stdout.strip().splitlines()[-1]

    assert told("") == "False ModelsResource"
    assert told("auto").endswith("RayModelsResource")


def test_the_doctor_says_whether_the_cluster_answers(nodes: Nodes, tmp_path: Path) -> None:
    def told(address: str) -> tuple[bool, str]:
        settings = read_settings({"FASHION_PIPELINE_DATA": str(tmp_path), "FASHION_PIPELINE_RAY": address})
        return {name: (good, text) for name, good, text, _ in examine(settings, "embedded")}["Ray cluster"]

    assert told(nodes.address) == (True, f"{nodes.address}: 2 processors, 0 cards")
    good, text = told("127.0.0.1:1")
    assert not good and "127.0.0.1:1: " in text and "refused" in text
    assert told("local") == (True, "of this machine alone")


def test_a_training_of_two_nodes_learns_what_one_process_learns(nodes: Nodes, tmp_path: Path) -> None:
    learnt, logs = [], []
    for name, processes in (("one", 1), ("two", 2)):
        job, file = order(tmp_path / name, batch_size=4, processes=processes, steps=3, learning_rate=1e-3)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        started = command(file, processes, nodes.address)
        assert ("together_on_ray" in " ".join(started)) == (processes == 2)
        told = subprocess.run(started, env=environment, timeout=200, capture_output=True, text=True)
        assert told.returncode == 0, told.stderr[-2000:]
        assert told.stdout.count("training: step 3 of 3") == 1
        learnt.append(load_file(job.output / "trained.safetensors"))
        logs.append(TrainingResult.load(job.output / TRAINING_OUTCOME).log)
    for ours, theirs in zip(logs[1][1:], logs[0][1:], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
    assert max(float((learnt[0][name] - learnt[1][name]).abs().max()) for name in learnt[0]) < 1e-4
