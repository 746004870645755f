"""The command as people use it: runs in processes of their own, which may be killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from fashion_pipeline import api
from fashion_pipeline.api import running
from fashion_pipeline.running.launching import DIED, _events
from fashion_pipeline.settings import Settings
from fashion_pipeline.store.errors import LockedError
from fashion_pipeline.store.storage.locks import holding, is_held
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.conftest import SAMPLES, make_chain, quick_profile
from fashion_pipeline_tests.store.planting import put_in_use

SOON = 240  # a busy machine takes half a minute to import what a command needs
"""Seconds after which something that should happen at once has not."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos of two styles and a data root."""
    folder = tmp_path_factory.mktemp("launching")
    for style in ("bag", "coat"):
        (folder / "photos" / style).mkdir(parents=True)
        for photo in sorted((SAMPLES / style).glob("*.png"))[:16]:
            shutil.copy(photo, folder / "photos" / style)
    make_chain(folder / "data", folder / "photos")
    return folder


@pytest.fixture(autouse=True)
def environment(root: Path) -> Iterator[None]:
    """The settings of this data root in this process; what was there before comes back."""
    before = dict(os.environ)
    os.environ.update(Settings(root / "data", quick_profile(), "auto", "auto").environment())
    yield
    os.environ.clear()
    os.environ.update(before)


def command(root: Path, *options: str) -> subprocess.Popen[bytes]:
    """`fashion-pipeline run` for coats, in a process group of its own.

    What it says goes to a file: a `tail` by which Dagster keeps what a run prints may outlive a run that is killed.
    """
    program = [sys.executable, "-c", "from fashion_pipeline.cli import app; app()", "run", "--style", "coat"]
    with (root / "said").open("wb") as said:
        return subprocess.Popen(
            [*program, "--mode", "prompt", "--budget", "12", "--products", "2", *options],
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=root,
            start_new_session=True,
        )


def worker_of(store: Store, style: str) -> int:
    """The process that holds the lock of a style, once it is there."""
    until = time.monotonic() + SOON
    while time.monotonic() < until:
        try:
            pid = int(json.loads(store.locks.style(style).read_text())["pid"])
            if is_held(store.locks.style(style)):  # a killed process leaves its name, but not its lock
                return pid
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    raise AssertionError("no run began")


def test_a_killed_worker_ends_the_command_with_a_sentence_and_after_a_power_cut_the_next_run_goes_on(
    root: Path,
) -> None:
    store = Store(root / "data")
    killed = command(root, "--source", str(root / "photos"))
    os.kill(worker_of(store, "coat"), signal.SIGKILL)
    assert killed.wait(SOON) == 1
    told = (root / "said").read_text()
    assert "Traceback" not in told
    assert f"error: coat: {DIED}" in " ".join(told.split()), told

    cut = command(root)
    worker = worker_of(store, "coat")
    time.sleep(3.0)  # until it holds the device
    os.killpg(cut.pid, signal.SIGKILL)
    with suppress(ProcessLookupError):  # it may have seen already that its command is gone
        os.kill(worker, signal.SIGKILL)
    cut.wait(SOON)

    began = time.monotonic()
    api.run("coat", "prompt", follow=lambda style, event: None)
    assert time.monotonic() - began < SOON
    assert store.sources.done_with("coat", "features") and store.records.latest("prompt_report", "coat")
    assert api.report("coat")["optimized_prompt"]


def test_what_was_chosen_once_is_used_again_until_it_is_forgotten(root: Path) -> None:
    store = Store(root / "data")
    made = {name: store.records.latest("search", "coat").made_of[name] for name in ("budget", "held_out_products")}
    assert made == {"budget": 12, "held_out_products": 2}
    assert running._choose(store, "coat", {"lora_weights": {"rank": 4}}, None, False) == {
        "generated_samples": {"budget": 12, "held_out_products": 2},
        "evaluation_report": {"products": 2},
        "lora_weights": {"rank": 4},
    }
    with pytest.raises(ValueError, match="rank is 0: it must be a whole number from 1 to 1024"):
        running._choose(store, "coat", {"lora_weights": {"rank": 0}}, None, False)
    assert store.sources.config("coat")["lora_weights"] == {"rank": 4}


@pytest.mark.thorough
def test_finetune_compare_and_generate_from_a_notebook(root: Path, tmp_path: Path) -> None:
    report = api.finetune("coat", steps=2, rank=4)
    assert report == api.compare("coat") and report["verdict"] == "undecided"
    store = Store(root / "data")
    training = store.records.latest("training", "coat")
    assert (training.made_of["steps"], training.made_of["rank"]) == (2, 4)
    (unpublished,) = api.generate("coat", n=1, out=tmp_path / "out", seed=9, version=training.key)
    told = Image.open(unpublished).text
    recommended = api.outcome("coat").prompt
    assert (told["prompt"], told["seed"], told["model"]) == (recommended.prompt, "9", f"coat {training.key}")
    model = store.records.latest("model", "coat").path("fashion_sd_model")
    put_in_use(store, "coat", training.key, model, {}, {})
    paths = api.generate("coat", "a photo of a coat", n=2, out=tmp_path / "out", seed=5)
    assert [path.name for path in paths] == ["coat-5.png", "coat-6.png"] and all(path.stat().st_size for path in paths)
    kept = paths[0].read_bytes()
    drawing = {"negative_prompt": "shoe", "guidance": 7.5}
    (again,) = api.generate("coat", "a photo of a coat", n=1, out=tmp_path / "out", seed=5, **drawing)
    assert again.name == "coat-5-2.png" and paths[0].read_bytes() == kept != again.read_bytes()
    told = Image.open(again).text
    assert (told["negative_prompt"], told["guidance_scale"]) == ("shoe", "7.5")
    (half,) = api.generate("coat", "a photo of a coat", n=1, out=tmp_path / "out", seed=6, strength=0.5)
    assert Image.open(half).text["model"] == f"coat {training.key}, strength 0.5"
    (row,) = [row for row in api.styles() if row["style"] == "coat"]
    assert row["best prompt"] and row["verdict"] == "undecided" and row["published"] == training.key
    assert api.clean(dry_run=True)


def test_a_style_that_is_in_use_is_named_before_a_process_is_started(root: Path) -> None:
    store = Store(root / "data")
    with holding(store.locks.style("coat"), "style 'coat'", "run 7 of the UI"), pytest.raises(LockedError) as error:
        api.run("coat", "prompt", follow=lambda style, event: None)
    assert "style 'coat' is in use by run 7 of the UI" in str(error.value)


@pytest.mark.thorough
def test_a_neighbour_that_is_in_use_is_told_and_does_not_stop_the_style_that_was_asked_for(root: Path) -> None:
    store = Store(root / "data")
    store.sources.mark("bag", "features", "photos as they were before")
    told: list[tuple[str, str]] = []
    with holding(store.locks.style("bag"), "style 'bag'", "run 7 of the UI"):
        api.run("coat", "prompt", follow=lambda style, event: told.append((style, event.text)))
    assert any(style == "bag" and "in use by run 7 of the UI" in text for style, text in told)
    assert store.sources.done_with("bag", "features") == "photos as they were before"


def test_several_first_starts_at_once_make_one_instance(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from fashion_pipeline.running.launching import opened_instance
from fashion_pipeline.settings import enter, read_settings
from fashion_pipeline.store.store import Store
with opened_instance(Store(enter(read_settings()).data)) as instance:
    instance.add_dynamic_partitions("styles", [sys.argv[1]])
"""
    settings = Settings(tmp_path / "data", "embedded", "auto", "auto")
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"style{n}"],
            env=os.environ | settings.environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for start in starts:
        _, told = start.communicate(timeout=SOON)
        assert start.returncode == 0, told


def test_a_failure_without_an_error_is_told_by_its_message() -> None:
    event = SimpleNamespace(event_type_value="PIPELINE_FAILURE", event_specific_data=None, message="it was killed")
    entry = SimpleNamespace(step_key=None, dagster_event=event)
    assert [(e.kind, e.text) for e in _events(entry, str)] == [("failed", DIED)]  # type: ignore[arg-type]
