"""Single stages under faults: each injection in a process of its own, forked from one that has loaded all libraries."""

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.intake.sources import read_source
from fashion_pipeline.stages.catalog.catalog import catalogue
from fashion_pipeline.stages.catalog.features import describe
from fashion_pipeline.stages.catalog.sources import take_in
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.evaluation.evaluation import evaluate
from fashion_pipeline.stages.pages.pages import index_page
from fashion_pipeline.stages.pages.reports import report_prompts
from fashion_pipeline.stages.prompts.candidates import write_candidates
from fashion_pipeline.stages.prompts.search import search
from fashion_pipeline.stages.prompts.similarity import compare_samples
from fashion_pipeline.stages.publishing.publishing import publish
from fashion_pipeline.stages.training.curation import curate_pairs
from fashion_pipeline.stages.training.process import Order, train_here
from fashion_pipeline.stages.training.training import export, train
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.faults import planting
from fashion_pipeline_tests.faults.outcome import Injected, differences, outcome, torn

STYLE, OTHER = "coat", "bag"
KINDS = (
    *("killed",) * 4,
    *("disk full",) * 2,
    *("read-only",) * 2,
    *("read error",) * 2,
    "clock set back",
    *("damaged",) * 3,
    "photos changed",
)
"""What happens to each stage, in turn."""

DAMAGED = ("records/*/*/*/*", "records/*/*/latest.json", "embeddings/**/*.parquet", "images/*/*.png", "work/**/*")
"""What is damaged: records with their tables, pages and weights, embeddings, samples, cached latents, checkpoints."""

SECONDS = 240
"""Longer than any stage takes; a process that takes longer hangs."""

PHOTOS = 12

LOADED = (
    "diffusers",
    "transformers",
    "peft",
    "duckdb",
    "scipy.stats",
    "sklearn.cluster",
    "matplotlib.pyplot",
    "transformers.models.auto.image_processing_auto",
    "transformers.models.clip.image_processing_clip",
    "transformers.models.siglip.image_processing_siglip",
    "fashion_pipeline.ml.diffusion",
    "fashion_pipeline.ml.encoders",
    "fashion_pipeline.ml.autoencoding",
    "fashion_pipeline.ml.training.finetuning",
    "fashion_pipeline.ml.training.exports.exporting",
)
"""What takes seconds to import is loaded before the first fork."""


def _nothing(text: str) -> None:
    pass


def _here(models: Models) -> Callable[[Any, str], None]:
    def trainer(job: Any, title: str) -> None:
        Order.write(models, job, title)
        train_here(models, job, title)

    return trainer


def _train(store: Store, models: Models) -> object:
    knobs = {"steps": 6, "checkpoint_every": 2, "sample_every": 3}
    return train(store, models, STYLE, values=knobs, control=False, trainer=_here(models))


def _evaluate(store: Store, models: Models) -> object:
    return evaluate(store, models, STYLE, products=2, report=_nothing)


def publish_as_better(store: Store, models: Models) -> object:
    """Two products are too few for a verdict: it is written by hand, so that there is something to publish."""
    report = store.records.latest("evaluation", STYLE).path("report.json")
    known = json.loads(report.read_text(encoding="utf-8"))
    if known["verdict"] != "better":
        store.files.write_json(report, known | {"verdict": "better", "decision": None})
    return publish(store, models, STYLE)


def _search(store: Store, models: Models) -> object:
    return search(store, models, STYLE, budget=12, held_out_products=2, report=_nothing)


STAGES: Mapping[str, Callable[[Store, Models], object]] = {
    "raw_images": lambda store, models: catalogue(store, STYLE),
    "clip_features": lambda store, models: describe(store, models, STYLE, _nothing),
    "prompt_candidates": lambda store, models: write_candidates(store, models, STYLE),
    "generated_samples": _search,
    "similarity_table": lambda store, models: compare_samples(store, models, STYLE, _nothing),
    "prompt_report": lambda store, models: report_prompts(store, models, STYLE, _nothing),
    "curated_subset": lambda store, models: curate_pairs(store, models, STYLE, keep=0.6, sample_share=0.5),
    "lora_weights": _train,
    "specialised_model": lambda store, models: export(store, models, STYLE),
    "evaluation_report": _evaluate,
    "published_model": publish_as_better,
    "style_leaderboard": lambda store, models: index_page(store, models),
}


class Bench:
    """An undisturbed run, kept as it was before and after each stage."""

    def __init__(self, folder: Path, samples: Path, profile: str) -> None:
        self.folder, self._samples, self._profile = folder, samples, profile
        self._photos = folder / "photos"

    def prepare(self) -> None:
        """Run all stages undisturbed, unless that was done; keeps what each began with, came to and touched."""
        for module in LOADED:
            importlib.import_module(module)
        if (self.folder / "ready").exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for style in (STYLE, OTHER):
            (self._photos / style).mkdir(parents=True)
            for photo in sorted((self._samples / style).glob("*.png"))[:PHOTOS]:
                shutil.copy(photo, self._photos / style)
        root = self.folder / "undisturbed"

        def begin() -> None:
            store = Store(root)
            spec = SourceSpec(str(self._photos))
            take_in(store, spec, read_source(spec))
            catalogue(store, OTHER)
            describe(store, self._models(root), OTHER, _nothing)

        _require(_forked(begin))
        for name in STAGES:
            shutil.copytree(root, self._before(name), symlinks=True)
            _require(_forked(lambda name=name: self._undisturbed(root, name)))  # type: ignore[misc]
        (self.folder / "ready").touch()

    def _undisturbed(self, root: Path, name: str) -> None:
        planting.arm(root, "none")
        STAGES[name](Store(root), self._models(root))
        changes, reads = planting.counted()
        result = {"outcome": outcome(root), "changes": changes, "reads": reads, "torn": torn(root)}
        (self.folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")

    def inject(self, number: int, seed: int) -> Injected:
        """One injection: the same fault for the same number and seed."""
        chosen = random.Random(f"{seed} {number}")
        name = list(STAGES)[number % len(STAGES)]
        kind = KINDS[number // len(STAGES) % len(KINDS)]
        known = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        root, photos = self.folder / "disturbed", self.folder / "photos"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self._before(name), root, symlinks=True)
        began = time.monotonic()
        kept = {path: path.read_bytes() for path in sorted((photos / STYLE).iterdir())}
        try:
            fault, ended = self._disturb(root, name, kind, known, chosen)
        finally:
            for path, data in kept.items():
                path.write_bytes(data)
        wrong = self._restart(root, name, known["outcome"])
        return Injected(number, name, fault, ended, tuple(wrong), time.monotonic() - began)

    def _disturb(
        self, root: Path, name: str, kind: str, known: dict[str, Any], chosen: random.Random
    ) -> tuple[str, str]:
        """Run a stage under a fault; returns what was done, and how the stage ended."""
        if kind == "photos changed":
            at = chosen.randint(1, PHOTOS)
            return f"photos changed at photo {at}", _ended(_forked(lambda: self._with_other_photos(root, name, at)))
        planted = "killed" if kind == "damaged" else kind
        at = chosen.randint(1, max(1, known["reads" if kind == "read error" else "changes"]))

        def run() -> None:
            planting.arm(root, planted, at)
            STAGES[name](Store(root), self._models(root))

        ended = _ended(_forked(run))
        fault = f"{planted} at {at}"
        return (f"{fault}, {planting.damage(root, chosen, *DAMAGED)}" if kind == "damaged" else fault), ended

    def _with_other_photos(self, root: Path, name: str, at: int) -> None:
        """When the n-th photo is opened, the next is replaced by the first and the last is deleted."""
        photos = sorted((self._photos / STYLE).iterdir())
        opened: list[str] = []

        def look(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and str(arguments[0]).startswith(f"{self._photos / STYLE}/"):
                opened.append(str(arguments[0]))
                if len(opened) == at:
                    photos[-1].unlink(missing_ok=True)
                    fresh = shutil.copy(photos[0], photos[0].with_name(".fresh"))
                    fresh.replace(photos[at % (PHOTOS - 1)])

        sys.addaudithook(look)
        STAGES[name](Store(root), self._models(root))

    def _restart(self, root: Path, name: str, wanted: dict[str, Any]) -> list[str]:
        """All stages up to this one, as a plain run does; returns what is not as without the fault."""
        note = self.folder / "restarted.json"

        def run() -> None:
            store, models = Store(root), self._models(root)
            catalogue(store, OTHER)  # a run describes the other styles first, where they are not, or damaged
            describe(store, models, OTHER, _nothing)
            for stage in list(STAGES)[: list(STAGES).index(name) + 1]:
                STAGES[stage](store, models)
            found = {"differ": differences(outcome(root), wanted), "torn": torn(root)}
            note.write_text(json.dumps(found), encoding="utf-8")

        note.unlink(missing_ok=True)
        if (ended := _ended(_forked(run))) != "well":
            return [f"the restart ended with: {ended}"]
        found = json.loads(note.read_text(encoding="utf-8"))
        return [*(f"differs: {each}" for each in found["differ"]), *(f"torn: {each}" for each in found["torn"])]

    def _before(self, name: str) -> Path:
        return self.folder / "before" / name

    def _models(self, root: Path) -> Models:
        import torch

        torch.set_num_threads(1)
        return Models(self._profile, device="cpu", precision="fp32", machine=self.folder / "machine")


def _forked(deed: Callable[[], None]) -> tuple[int, str]:
    """Do something in a child; returns its status as `waitpid` gives it, and what it said of an error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 0
        try:
            signal.alarm(SECONDS)
            deed()
        except BaseException as error:
            code = 1
            os.write(writing, f"{type(error).__name__}: {error}".encode()[:2000])
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as said:
        text = said.read()
    return os.waitpid(child, 0)[1], text


def _ended(result: tuple[int, str]) -> str:
    status, said = result
    if os.WIFSIGNALED(status):
        return {signal.SIGKILL: "killed", signal.SIGALRM: "HANGS"}.get(os.WTERMSIG(status), f"signal {status}")
    return "well" if os.WEXITSTATUS(status) == 0 else said


def _require(result: tuple[int, str]) -> None:
    if (ended := _ended(result)) != "well":
        raise RuntimeError(f"the undisturbed run ended with: {ended}")
