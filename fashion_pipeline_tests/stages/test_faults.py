"""What broke once: each test failed before its fault was mended."""

import contextlib
import csv
import json
import multiprocessing
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.core.catalog.splits import split_of
from fashion_pipeline.core.prompts.search import BudgetError
from fashion_pipeline.core.rows import Sample
from fashion_pipeline.defs.automation.jobs import ASSETS, CATALOG, FINETUNING, PROMPTS
from fashion_pipeline.intake.photos import PhotoError
from fashion_pipeline.intake.sources import read_source
from fashion_pipeline.stages.catalog import catalog as catalog_stage
from fashion_pipeline.stages.catalog.catalog import catalogue
from fashion_pipeline.stages.catalog.features import describe
from fashion_pipeline.stages.catalog.sources import take_in
from fashion_pipeline.stages.drawing.drawing import CHUNK, Embedder
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.search import search
from fashion_pipeline.store.storage.locks import holding
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.conftest import SAMPLES, SMALL, Chain, errors, make_chain

Small = Callable[..., Chain]
TINY = {
    "ops": {
        "lora_weights": {"config": {"steps": 2}},
        "evaluation_report": {"config": {"products": 2}},
    }
}


def only(config: dict, *names: str) -> dict:
    return {"ops": {name: value for name, value in config["ops"].items() if name in names}}


# Jobs and assets


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("assets", "config"),
    [
        (CATALOG, {}),
        ((*CATALOG, *PROMPTS), only(SMALL, "generated_samples")),
        ((*CATALOG, *FINETUNING), TINY),
    ],
    ids=["catalog", "prompt_optimization", "finetuning"],
)
def test_every_job_runs_on_an_empty_data_root(small: Small, assets, config) -> None:
    chain = small()
    result = chain.materialize(assets, "coat", config)
    assert result.success, errors(result)


NEEDS = {
    "clip_features": "raw_images",
    "prompt_candidates": "clip_features",
    "generated_samples": "prompt_candidates",
    "similarity_table": "generated_samples",
    "prompt_report": "similarity_table",
    "curated_subset": "clip_features",
    "lora_weights": "curated_subset",
    "specialised_model": "lora_weights",
    "evaluation_report": "specialised_model",
    "published_model": "evaluation_report",
}


@pytest.mark.parametrize("asset", NEEDS)
def test_an_asset_without_its_upstream_names_the_one_to_materialise_first(tmp_path: Path, asset: str) -> None:
    (tmp_path / "photos" / "coat").mkdir(parents=True)
    shutil.copy(next((SAMPLES / "coat").glob("*.png")), tmp_path / "photos" / "coat")
    chain = make_chain(tmp_path / "data", tmp_path / "photos")
    result = chain.materialize([each for each in ASSETS if each.key.path[-1] == asset], "coat")
    (message,) = errors(result)
    assert f"materialise {NEEDS[asset]} for it first" in message


def test_a_style_that_somebody_works_on_is_not_run_twice_and_the_message_says_who(small: Small) -> None:
    chain = small()
    with holding(chain.store.locks.style("coat"), "style 'coat'", "run 7 of the terminal"):
        result = chain.materialize(CATALOG[:1], "coat")
    assert not result.success
    failure = next(e for e in result.all_events if e.event_type_value == "PIPELINE_FAILURE")
    assert "style 'coat' is in use by run 7 of the terminal" in str(failure.event_specific_data)
    assert chain.materialize(CATALOG[:1], "coat").success


# Catalogs


def copies(folder: Path, photos: list[Path], quality: int) -> None:
    """Photos encoded again: nearly the same pictures with other bytes."""
    folder.mkdir(parents=True)
    for photo in photos:
        Image.open(photo).convert("RGB").resize((128, 128)).save(folder / f"{photo.stem}.jpg", quality=quality)


def catalogue_slowly(root: Path, style: str, barrier) -> None:
    """Build a catalog in a process of its own; if nothing stops them, two read what is known before either writes."""
    inside = catalog_stage.build_catalog

    def build(*arguments, **named):
        made = inside(*arguments, **named)
        with contextlib.suppress(threading.BrokenBarrierError):
            barrier.wait(timeout=1.0)
        return made

    catalog_stage.build_catalog = build
    catalogue(Store(root), style)


def test_two_catalogs_built_at_once_tear_no_near_duplicates_apart(tmp_path: Path) -> None:
    originals = sorted((SAMPLES / "coat").glob("*.png"))[:30]
    copies(tmp_path / "photos" / "coat", originals, 95)
    copies(tmp_path / "photos" / "jacket", originals, 80)
    chain = make_chain(tmp_path / "data", tmp_path / "photos")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [
        context.Process(target=catalogue_slowly, args=(chain.store.root, style, barrier))
        for style in ("coat", "jacket")
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    for style in ("coat", "jacket"):
        assert not catalogue(chain.store, style).torn


def test_near_duplicates_in_two_splits_stop_the_run(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = small()
    inside = catalog_stage.build_catalog

    def tear(*arguments, **named):
        made = inside(*arguments, **named)
        rows = made.images.to_pylist()
        other = next(row for row in rows if row["split"] != rows[0]["split"])
        other |= {name: rows[0][name] for name in ("perceptual_hash", "thumbnail")}
        return type(made)(type(made.images).from_pylist(rows, schema=made.images.schema), made.rejects)

    monkeypatch.setattr(catalog_stage, "build_catalog", tear)
    result = chain.materialize(CATALOG[:1], "coat")
    failed = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert [e.check_name for e in failed] == ["no_duplicate_across_splits"]
    assert failed[0].metadata["pairs_in_two_splits"].value == 1


def manifest(folder: Path, splits: dict[str, int]) -> Path:
    """A manifest of products whose keys fall into these splits."""
    keys = (str(number) for number in range(10_000))
    wanted = dict(splits)
    rows = []
    photos = iter(sorted((SAMPLES / "coat").glob("*.png")))
    while any(wanted.values()):
        key = next(key for key in keys if wanted.get(split_of(key), 0))
        wanted[split_of(key)] -= 1
        photo = next(photos)
        shutil.copy(photo, folder / photo.name)
        rows.append(["coat", key, photo.name])
    with (folder / "photos.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["style", "id", "path"], *rows])
    return folder / "photos.csv"


@pytest.mark.thorough
def test_a_style_none_of_whose_photos_fell_into_dev_or_test_runs_to_the_end_with_no_evidence(tmp_path: Path) -> None:
    chain = make_chain(tmp_path / "data", manifest(tmp_path, {"search": 8}))
    result = chain.materialize(ASSETS, "coat", SMALL)
    assert result.success, errors(result)
    report = chain.store.records.latest("evaluation", "coat").json("report.json")
    assert report["verdict"] == "undecided" and "Only 0 dev products" in report["reason"]


def test_a_style_none_of_whose_photos_fell_into_search_is_refused_with_the_mend(tmp_path: Path) -> None:
    chain = make_chain(tmp_path / "data", manifest(tmp_path, {"dev": 8}))
    result = chain.materialize((*CATALOG, *PROMPTS), "coat")
    (message,) = errors(result)
    assert "no photo of style 'coat' fell into the split 'search'" in message and "add photos" in message


# Moving


@pytest.mark.thorough
def test_a_moved_data_root_and_moved_photos_change_nothing(tmp_path: Path, small: Small) -> None:
    chain = small()
    config = {"ops": TINY["ops"]}
    assert chain.materialize((*CATALOG, *FINETUNING), "coat", config).success
    before = {kind: chain.store.records.latest(kind, "coat").key for kind in ("catalog", "features", "training")}
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "data").rename(moved / "data")
    (tmp_path / "photos").rename(moved / "photos")
    again = make_chain(moved / "data", moved / "photos")
    result = again.materialize((*CATALOG, *FINETUNING), "coat", config)
    assert result.success, errors(result)
    assert {kind: again.store.records.latest(kind, "coat").key for kind in before} == before
    (trained,) = [e for e in result.get_asset_materialization_events() if e.asset_key.path[-1] == "lora_weights"]
    assert trained.materialization.metadata["steps run"].value == 0


def test_a_style_that_is_in_two_places_stays_with_the_one_that_is_there(tmp_path: Path, small: Small) -> None:
    chain = small(8)
    shutil.copytree(tmp_path / "photos", tmp_path / "others")
    other = SourceSpec(str(tmp_path / "others"))
    with pytest.raises(Exception, match=f"already comes from {tmp_path / 'photos'}"):
        take_in(chain.store, other, read_source(other))
    assert chain.store.sources.source("coat").path == str(tmp_path / "photos")


# Drawing and embedding


@pytest.mark.thorough
def test_an_image_that_was_cut_off_is_drawn_again(small: Small) -> None:
    chain = small()
    config = only(SMALL, "generated_samples")
    assert chain.materialize((*CATALOG, *PROMPTS), "coat", config).success
    samples = Sample.read(chain.store.records.latest("search", "coat").table("samples"))
    path = chain.store.samples.path(samples[0].id)
    whole = path.read_bytes()
    path.write_bytes(b"")
    result = chain.materialize(PROMPTS, "coat", config)
    assert result.success, errors(result)
    assert path.read_bytes() == whole
    (drawn,) = [e for e in result.get_asset_materialization_events() if e.asset_key.path[-1] == "generated_samples"]
    assert drawn.materialization.metadata["images drawn"].value == 1


def test_images_are_filed_under_the_batch_shape_that_they_were_drawn_at(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from fashion_pipeline.ml.diffusion import Generator

    chain = small(8)
    assert chain.materialize((*CATALOG, PROMPTS[0]), "coat").success
    inside = Generator._draw_batch

    def out_of_memory(self, requests):
        if self.batch_size > 4:
            raise torch.OutOfMemoryError("planted")
        return inside(self, requests)

    monkeypatch.setattr(Generator, "_draw_batch", out_of_memory)
    made = search(chain.store, chain.models, "coat", budget=12, held_out_products=1, report=lambda _: None)
    assert all(chain.store.samples.readable(sample.id) for sample in made.samples)
    monkeypatch.undo()
    again = search(chain.store, chain.models, "coat", budget=12, held_out_products=1, report=lambda _: None)
    assert again.drawn == 0 and {s.id for s in again.samples} == {s.id for s in made.samples}
    for path in chain.store.samples.all():
        path.unlink()
    anew = search(chain.store, chain.models, "coat", budget=12, held_out_products=1, report=lambda _: None)
    assert not {sample.id for sample in made.samples} & {sample.id for sample in anew.samples}


def test_a_budget_that_is_too_small_is_refused_before_a_model_is_loaded(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = small(8)
    assert chain.materialize((*CATALOG, PROMPTS[0]), "coat").success

    def never(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Models, "generator", never)
    monkeypatch.setattr(Models, "encoder", never)
    with pytest.raises(BudgetError, match="a budget of 2 images cannot compare"):
        search(chain.store, chain.models, "coat", budget=2, held_out_products=1, report=lambda _: None)


def test_an_embedding_run_that_dies_keeps_what_it_has_done(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = small(96)
    assert catalogue(chain.store, "coat").images.num_rows > CHUNK + 5
    photos = chain.store.photos(chain.store.records.latest("catalog", "coat"))
    Path(photos[CHUNK + 5].path).unlink()
    with pytest.raises(PhotoError, match=f"{photos[CHUNK + 5].path}: .*check that it exists"):
        describe(chain.store, chain.models, "coat", lambda _: None)
    with chain.models.encoder() as encoder:
        kept = chain.store.features.index("coat", "encoder", encoder.fingerprint)
        assert len(kept.missing([photo.id for photo in photos])) == len(photos) - CHUNK
        embedder = Embedder(chain.store.features, "coat", "encoder", encoder, lambda _: None)
        locations = {photo.id: photo.path for photo in photos[: CHUNK + 5]}
        embedder.embed(locations, locations.__getitem__)
        assert embedder.computed == 5


# Curation and training


def test_a_pair_that_looks_like_a_held_out_photo_stops_the_run(small: Small) -> None:
    chain = small()
    assert chain.materialize(CATALOG, "coat").success
    store = chain.store
    catalog = store.records.latest("catalog", "coat")
    rows = catalog.table("images").to_pylist()
    trained = next(row for row in rows if row["split"] == "search")
    held_out = next(row for row in rows if row["split"] == "dev")
    twin = {**held_out, **{name: trained[name] for name in ("perceptual_hash", "thumbnail")}, "id": "twin"}
    store.sources.register("jacket", "jacket", store.sources.source("coat"))
    store.records.add("catalog", "jacket", tables={"images": [twin], "rejects": []})
    result = chain.materialize([FINETUNING[0]], "coat", {"ops": {"curated_subset": {"config": {"keep": 1.0}}}})
    failed = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert [e.check_name for e in failed] == ["trains_on_search_only"]
    assert failed[0].metadata["photos_outside"].value == 1


@pytest.mark.thorough
def test_a_second_training_before_publishing_is_not_published_with_the_firsts_verdict(small: Small) -> None:
    chain = small()
    assert chain.materialize((*CATALOG, *FINETUNING), "coat", TINY).success
    store = chain.store
    evaluated = store.records.latest("evaluation", "coat")
    other = {"ops": {"lora_weights": {"config": {"steps": 3}}}}
    assert chain.materialize(FINETUNING[1:3], "coat", other).success
    assert store.records.latest("training", "coat").key != evaluated.inputs["training"]
    path = evaluated.path("report.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"verdict": "better", "decision": None}))
    assert chain.materialize([each for each in FINETUNING if each.key.path[-1] == "published_model"], "coat").success
    champion = store.versions.champion("coat")
    assert champion is not None and champion.name == evaluated.inputs["training"]
    weights = store.records.input(evaluated, "training").path("fashion_lora_weights.safetensors")
    assert (champion / "fashion_lora_weights.safetensors").read_bytes() == weights.read_bytes()


def test_the_length_of_the_judges_embeddings_is_checked_too(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    from fashion_pipeline.ml.encoders import JudgeEncoder

    inside = JudgeEncoder.embed_images

    def longer(self, images):
        rows = inside(self, images)
        return rows * np.float32(1.5) if type(self) is JudgeEncoder else rows

    monkeypatch.setattr(JudgeEncoder, "embed_images", longer)
    result = small(8).materialize(CATALOG, "coat")
    failed = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert [e.check_name for e in failed] == ["unit_norm"]
    assert failed[0].metadata["largest_error"].value == pytest.approx(0.5, abs=0.01)


# Photos that change while a run reads them


def test_a_photo_that_was_replaced_since_the_catalog_is_neither_embedded_nor_trained_on(small: Small) -> None:
    chain = small()
    catalogue(chain.store, "coat")
    described = chain.store.photos(chain.store.records.latest("catalog", "coat"))
    replaced, other = described[0], described[1]
    whole = Path(replaced.path).read_bytes()
    shutil.copy(other.path, replaced.path)
    with pytest.raises(PhotoError, match=f"{replaced.path}: it was replaced by another photo since the catalog"):
        describe(chain.store, chain.models, "coat", lambda _: None)
    Path(replaced.path).write_bytes(whole)
    assert chain.materialize((*CATALOG, FINETUNING[0]), "coat").success
    photos = {photo.id: photo for photo in described}
    pairs = chain.store.records.latest("curation", "coat").table("training_pairs").to_pylist()
    trained = next(photos[row["id"]] for row in pairs if row["kept"])
    shutil.copy(other.path if trained.id != other.id else replaced.path, trained.path)
    result = chain.materialize([FINETUNING[1]], "coat", only(TINY, "lora_weights"))
    (message,) = errors(result)
    assert f"training image {trained.path}: it was replaced by another photo" in message
