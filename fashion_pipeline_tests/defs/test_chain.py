import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import get_args

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fashion_pipeline.core.evaluation.verdicts import VerdictName
from fashion_pipeline.core.features.attributes import (
    Attribute,
    mean_values,
    one_a_facet,
    phrased,
    without_other_garments,
)
from fashion_pipeline.core.features.similarity import anchors, within_similarity
from fashion_pipeline.core.progress import progress_in
from fashion_pipeline.core.rows import Pair, Sample, Split
from fashion_pipeline.core.tables import TABLES
from fashion_pipeline.core.training.curation import validation_photos
from fashion_pipeline.defs.assets.training import lora_weights, specialised_model
from fashion_pipeline.defs.automation.jobs import ASSETS, CATALOG, FINETUNING
from fashion_pipeline.stages.catalog.features import style_attributes
from fashion_pipeline.stages.drawing.base import denoiser_bytes
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.similarity import style_anchors
from fashion_pipeline.stages.standing.costs import cost_of
from fashion_pipeline.stages.training.curation import curate_pairs
from fashion_pipeline.stages.training.handing_over import export_dataset
from fashion_pipeline.stages.training.training import train
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import KINDS, Record
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.conftest import PHOTOS, SAMPLES, SMALL, STYLES, Chain, errors, make_chain
from fashion_pipeline_tests.security.test_pickle import is_pickle


def value(result: dg.ExecuteInProcessResult, asset: str, name: str) -> object:
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset)]
    return event.materialization.metadata[name].value


def test_every_asset_is_materialised_and_every_table_is_written(described: Chain, full_run) -> None:
    assert full_run.success
    made = {event.asset_key.path[-1] for event in full_run.get_asset_materialization_events()}
    assert made >= {asset.key.path[-1] for asset in ASSETS}
    counted = {table: described.store.sql(f"SELECT * FROM {table} WHERE style = 'coat'").num_rows for table in TABLES}
    assert all(rows for table, rows in counted.items() if table != "rejects"), counted


def test_what_an_asset_made_is_its_data_version(described: Chain, full_run) -> None:
    versions = {}
    for event in full_run.get_asset_materialization_events():
        versions[event.asset_key.path[-1]] = event.materialization.tags["dagster/data_version"]
    for kind, made in KINDS.items():
        assert versions[made.asset] == described.store.records.latest(kind, "coat").key, kind


def test_no_blocking_check_failed(full_run) -> None:
    evaluations = full_run.get_asset_check_evaluations()
    assert len(evaluations) > 15 and {e.partition for e in evaluations} == {"coat"}
    assert [e.check_name for e in evaluations if not e.passed and e.severity == dg.AssetCheckSeverity.ERROR] == []


def test_a_second_run_draws_no_image_and_trains_no_step(second_run) -> None:
    assert second_run.success
    assert value(second_run, "generated_samples", "images drawn") == 0
    assert value(second_run, "evaluation_report", "images drawn") == 0
    assert value(second_run, "lora_weights", "steps run") == 0
    assert value(second_run, "clip_features", "embeddings computed") == 0


def test_the_curated_pairs_are_handed_to_another_trainer(described: Chain, full_run, tmp_path: Path) -> None:
    curated = described.store.records.latest("curation", "coat")
    pairs = [pair for pair in Pair.read(curated.table("training_pairs")) if pair.kept]
    count = export_dataset(described.store, described.models, "coat", "kohya", tmp_path / "out", pytest.fail)
    images = sorted((tmp_path / "out" / "images").glob("*.png"))
    assert len(images) == count == len(pairs)
    assert [image.with_suffix(".txt").read_text().strip() for image in images] == [pair.caption for pair in pairs]
    rows = [json.loads(line) for line in (tmp_path / "out" / "images" / "metadata.jsonl").read_text().splitlines()]
    assert [(row["file_name"], row["text"]) for row in rows] == [
        (image.name, pair.caption) for image, pair in zip(images, pairs, strict=True)
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.toml", "dataset.toml", "images", "train.sh"}
    with pytest.raises(ValueError, match="is not empty: name a new folder"):
        export_dataset(described.store, described.models, "coat", "kohya", tmp_path / "out", pytest.fail)
    with pytest.raises(ValueError, match="choose among kohya, diffusers, imagefolder"):
        export_dataset(described.store, described.models, "coat", "photoshop", tmp_path / "new", pytest.fail)


def test_the_report_has_the_promised_fields(described: Chain, full_run) -> None:
    report = evaluation(described).json("report.json")
    assert report["style"] == "coat"
    assert report["verdict"] in get_args(VerdictName)
    assert {(s["model"], s["prompt"], s["measure"]) for s in report["scores"]} == {
        (m, p, e)
        for m in ("original", "specialised")
        for p in ("plain", "best")
        for e in ("encoder", "judge", "prompt", "recognised", "garment", "copied")
    }
    assert report["garments_seen"].keys() == {"encoder", "judge"}
    scores = evaluation(described).table("scores").to_pylist()
    best = [
        s["value"]
        for s in scores
        if (s["model"], s["prompt"], s["measure"], s["split"]) == ("original", "best", "encoder", "test")
    ]
    assert report["similarity_score"] == pytest.approx(np.mean(best), abs=1e-6)


def test_scores_are_the_cosines_of_the_images_on_disk_by_the_model_they_are_filed_under(
    described: Chain, full_run
) -> None:
    photos = {photo.id: photo for photo in described.store.photos(described.store.records.latest("catalog", "coat"))}
    samples = Sample.read(evaluation(described).table("evaluation_samples"))
    first = [sample for sample in samples if sample.reference == samples[0].reference]
    assert {sample.model_name for sample in first} == {"original", "specialised"}
    with described.models.encoder() as encoder:
        real = encoder.embed_images([Image.open(photos[first[0].reference].path).convert("RGB")])[0]
        drawn = encoder.embed_images([Image.open(described.store.samples.path(sample.id)) for sample in first])
    scores = evaluation(described).table("scores").to_pylist()
    for sample, row in zip(first, drawn, strict=True):
        cell = (sample.model_name, sample.prompt_name, "encoder", sample.split, sample.product_group)
        keys = ("model", "prompt", "measure", "split", "product_group")
        found = [s["value"] for s in scores if tuple(s[key] for key in keys) == cell]
        assert found == [pytest.approx(float(row @ real), abs=1e-4)]


def test_the_two_models_are_two_models(described: Chain, full_run) -> None:
    samples = Sample.read(evaluation(described).table("evaluation_samples"))
    by_model = {name: {s.model for s in samples if s.model_name == name} for name in ("original", "specialised")}
    assert by_model["original"] == {described.models.fingerprint("generator")}
    assert len(by_model["specialised"]) == 1 and not by_model["original"] & by_model["specialised"]
    assert not {s.id for s in samples if s.model_name == "original"} & {
        s.id for s in samples if s.model_name == "specialised"
    }


def test_no_held_out_photo_is_trained_on(described: Chain, full_run) -> None:
    store = described.store
    splits = {photo.id: photo.split for photo in store.photos(store.records.latest("catalog", "coat"))}
    pairs = Pair.read(store.records.latest("curation", "coat").table("training_pairs"))
    assert {splits[pair.id] for pair in pairs if pair.origin == "reference"} == {"search"}


def test_the_curated_pairs_are_trained_on_and_not_the_control(
    described: Chain, full_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = described.store
    pairs = Pair.read(store.records.latest("curation", "coat").table("training_pairs"))
    kept, control = ([pair.id for pair in pairs if pair.kept == which] for which in (True, False))
    assert sorted(kept) != sorted(control)
    trained: list[list[str]] = []

    class NotedError(Exception):
        pass

    def note(models: Models, job):
        trained.append([pair.id for pair in job.pairs])
        raise NotedError

    monkeypatch.setattr("fashion_pipeline.stages.training.training.training_identity", note)
    for which in (False, True):
        with pytest.raises(NotedError):
            train(store, described.models, "coat", values={}, control=which, trainer=lambda job, title: None)
    assert trained == [kept, control]


def test_the_threshold_of_samples_is_how_alike_the_style_is_to_itself(described: Chain, full_run) -> None:
    store = described.store
    features = store.records.latest("features", "coat")
    photos = [p for p in store.photos(store.records.latest("catalog", "coat")) if p.split == "search"]
    rows = store.features.index("coat", "encoder", str(features.made_of["encoder"])).rows([p.id for p in photos])
    expected = within_similarity(rows, [photo.product_group for photo in photos])
    assert value(full_run, "curated_subset", "least similarity of a sample") == pytest.approx(expected)


def test_what_is_trained_on_does_not_depend_on_other_styles(tmp_path: Path) -> None:
    for style in STYLES:
        (tmp_path / "photos" / style).mkdir(parents=True)
        for photo in sorted((SAMPLES / style).glob("*.png"))[:24]:
            shutil.copy(photo, tmp_path / "photos" / style)
    chain = make_chain(tmp_path / "data", tmp_path / "photos")
    assert chain.materialize(CATALOG, "coat").success
    alone = curate_pairs(chain.store, chain.models, "coat", keep=0.9, sample_share=0.1)
    assert chain.materialize(CATALOG, "bag").success
    beside = curate_pairs(chain.store, chain.models, "coat", keep=0.9, sample_share=0.1)
    assert alone.threshold == beside.threshold < 1 and alone.pairs == beside.pairs


def test_all_conditions_of_a_product_share_a_seed(described: Chain, full_run) -> None:
    seeds: dict[str, set[int]] = {}
    for sample in Sample.read(evaluation(described).table("evaluation_samples")):
        seeds.setdefault(sample.product_group, set()).add(sample.seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len({seed for found in seeds.values() for seed in found}) == len(seeds)


def test_the_specialised_model_loads_with_stock_diffusers(described: Chain, full_run) -> None:
    from diffusers import DiffusionPipeline

    folder = described.store.records.latest("model", "coat").path("fashion_sd_model")
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a photo of a coat", num_inference_steps=2).images[0].size == (64, 64)


def test_the_page_shows_pictures_and_asks_for_nothing_from_elsewhere(described: Chain, full_run) -> None:
    page = evaluation(described).path("report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") > 8
    assert "<script" not in page
    assert 'src="http' not in page


def test_nothing_is_published_unless_that_was_decided_and_no_partition_is_missing(described: Chain, full_run) -> None:
    decision = evaluation(described).report().decision
    assert (described.store.versions.champion("coat") is not None) == decision.publish
    for asset in ASSETS:
        if asset.partitions_def is not None:
            assert "coat" in described.instance.get_materialized_partitions(asset.key), asset.key
    told = value(full_run, "published_model", "what became of it")
    assert told.startswith(decision.headline) and value(full_run, "published_model", "version in use") == "none"


def test_a_better_model_is_published_complete_with_its_trail(described: Chain, full_run) -> None:
    store = described.store
    with planted_verdict(store, "better") as record:
        result = described.materialize([a for a in FINETUNING if a.key.path[-1] == "published_model"], "coat")
    assert result.success
    champion = store.versions.champion("coat")
    assert champion is not None and champion.name == record.inputs["training"]
    names = {path.name for path in champion.iterdir()}
    assert names >= {"model_index.json", "README.md", "report.html", "fashion_lora_weights.safetensors", "unet", "vae"}
    assert json.loads((champion / "evaluation_report.json").read_text())["verdict"] == "better"
    trail = champion / "trail"
    assert {path.name for path in trail.iterdir()} >= {"catalog", "features", "search", "curation", "training"}
    pairs = pq.read_table(trail / "curation" / "training_pairs.parquet").to_pylist()
    listed = {row["id"]: row["path"] for row in pq.read_table(trail / "catalog" / "images.parquet").to_pylist()}
    assert all(listed[row["id"]] for row in pairs if row["origin"] == "reference")
    seeds = pq.read_table(trail / "evaluation" / "evaluation_samples.parquet")["seed"].to_pylist()
    assert len(seeds) == store.records.latest("evaluation", "coat").table("evaluation_samples").num_rows


def test_the_model_card_of_a_version_draws_with_its_own_lines(described: Chain, full_run, tmp_path: Path) -> None:
    with planted_verdict(described.store, "better"):
        assert described.materialize([a for a in FINETUNING if a.key.path[-1] == "published_model"], "coat").success
    champion = described.store.versions.champion("coat")
    text = (champion / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    program = lines.replace("<this folder>", str(champion)).replace("sample.png", str(tmp_path / "sample.png"))
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, capture_output=True, timeout=300)
    with Image.open(tmp_path / "sample.png") as image:
        assert image.size == (64, 64) and len(image.convert("RGB").getcolors(64 * 64)) > 100


@contextmanager
def planted_verdict(store: Store, verdict: str, **more: object) -> Iterator[Record]:
    """The newest evaluation with another verdict in its report."""
    record = store.records.latest("evaluation", "coat")
    path = record.path("report.json")
    before = path.read_text()
    planted = {"verdict": verdict, "reason": "planted", "decision": None, **more}
    path.write_text(json.dumps(json.loads(before) | planted))
    try:
        yield record
    finally:
        path.write_text(before)


def test_sql_reads_all_styles(described: Chain, full_run) -> None:
    counted = described.store.sql("SELECT style, count(*) AS n FROM images GROUP BY style ORDER BY style").to_pylist()
    assert counted == [{"style": "bag", "n": 48}, {"style": "coat", "n": 48}]


def test_embeddings_are_of_the_photos_they_are_filed_under(described: Chain) -> None:
    photos = described.store.photos(described.store.records.latest("catalog", "coat"))[:4]
    with described.models.judge() as judge:
        expected = judge.embed_images([Image.open(photo.path).convert("RGB") for photo in photos])
        stored = described.store.features.index("coat", "judge", judge.fingerprint)
    assert np.abs(stored.rows([photo.id for photo in photos]) - expected).max() < 1e-4


def test_damaged_photos_are_listed_with_the_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "coat"
    folder.mkdir(parents=True)
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{number}.png")
    (folder / "truncated.png").write_bytes((folder / "0.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("not a photo")
    chain = make_chain(tmp_path / "data", tmp_path / "photos")
    assert chain.materialize([CATALOG[0]], "coat").success
    catalog = chain.store.records.latest("catalog", "coat")
    assert any("truncated.png" in row["path"] for row in catalog.table("rejects").to_pylist())
    assert catalog.table("images").num_rows == 12


def test_a_style_with_three_photos_fails_with_one_message_that_names_the_mend(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "coat"
    folder.mkdir(parents=True)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{number}.png")
    chain = make_chain(tmp_path / "data", tmp_path / "photos")
    result = chain.materialize([CATALOG[0]], "coat")
    assert not result.success
    assert "3 usable photos" in errors(result)[0]


def test_attributes_of_search_photos_alone_shape_a_prompt(described: Chain) -> None:
    store = described.store
    features = store.records.latest("features", "coat")
    search = {p.id for p in store.photos(store.records.latest("catalog", "coat")) if p.split == "search"}
    vocabulary = described.models.vocabulary()
    rows = without_other_garments(features.table("attributes"), "coat", vocabulary)

    def typical(rows: pa.Table) -> list[Attribute]:
        return one_a_facet(phrased(mean_values(rows), vocabulary))

    expected = typical(rows.filter(pc.field("id").isin(sorted(search))))
    assert style_attributes(store, described.models, features) == expected != typical(rows)


def test_prompts_are_searched_on_search_photos_alone(described: Chain, full_run) -> None:
    samples = Sample.read(described.store.records.latest("search", "coat").table("samples"))
    assert {sample.split for sample in samples if sample.purpose == "search"} == {"search"}
    assert {sample.split for sample in samples if sample.purpose == "dev"} == {"dev"}


@pytest.mark.parametrize("role", ["encoder", "judge"])
def test_anchors_come_from_search_photos_alone(described: Chain, full_run, role: str) -> None:
    store = described.store
    catalogs = {style: store.records.latest("catalog", style) for style in STYLES}
    model = str(store.records.latest("features", "coat").made_of[role])
    found = style_anchors(store, catalogs["coat"], role, model)

    def rows(style: str, splits: set[str]):
        photos = [photo for photo in store.photos(catalogs[style]) if photo.split in splits]
        return store.features.index(style, role, model).rows([p.id for p in photos]), [p.product_group for p in photos]

    def expected(splits: set[str]):
        there, _ = rows("bag", splits)
        made = anchors(*rows("coat", splits), there.mean(axis=0))
        return pytest.approx((made.across, made.within), abs=1e-6)

    assert astuple(found.anchors) == expected({"search"})
    assert astuple(found.anchors) != expected({"search", "dev"})
    assert set(found.on) == {"bag"} and not found.left_out


def test_a_neighbour_described_by_another_encoder_is_named(described: Chain, full_run) -> None:
    store = described.store
    before = store.records.latest("features", "bag")
    other, tables = dict(before.made_of) | {"encoder": "other"}, {"attributes": before.table("attributes")}
    store.records.add(
        "features", "bag", inputs={"catalog": store.records.input(before, "catalog")}, made_of=other, tables=tables
    )
    try:
        found = style_anchors(store, store.records.latest("catalog", "coat"), "encoder", str(before.made_of["encoder"]))
        assert found.anchors is None and found.left_out == ["bag"]
        with pytest.raises(StorageError, match=r"'bag' was described by another encoder.*materialise clip_features"):
            curate_pairs(store, described.models, "bag", keep=0.9, sample_share=0.1)
    finally:
        store.records.point(before)


def evaluation(chain: Chain) -> Record:
    return chain.store.records.latest("evaluation", "coat")


def test_weights_are_chosen_on_search_photos_that_nothing_is_trained_on(described: Chain, full_run) -> None:
    store = described.store
    training = store.records.latest("training", "coat")
    curation = store.records.input(training, "curation")
    photos = store.photos(store.records.input(curation, "catalog"))
    chosen_on = validation_photos(photos)
    products = {photo.product_group for photo in chosen_on}
    trained = {pair.id for pair in Pair.read(curation.table("training_pairs"))}
    samples = Sample.read(store.records.latest("search", "coat").table("samples"))
    assert len(chosen_on) >= 4
    assert {photo.split for photo in chosen_on} == {Split.SEARCH}
    assert not trained & {photo.id for photo in photos if photo.product_group in products}
    assert not trained & {sample.id for sample in samples if sample.product_group in products}
    looks = {row["step"]: row["similarity"] for row in training.table("training_log").to_pylist() if row["similarity"]}
    assert sorted(looks) == list(range(7))
    closest = max((step for step in looks if step), key=looks.__getitem__)
    best = training.json("result.json")["step"]
    assert closest <= best and looks[best] > looks[closest] - 0.05
    assert not (store.training_folder("coat", training.key) / "checkpoints").exists()
    sheet = Image.open(training.path("samples") / f"step-{best:08d}.png")
    assert sheet.width > 64


def test_the_whole_unet_can_be_trained_instead(described: Chain, full_run) -> None:
    store = described.store
    before = [store.records.latest(kind, "coat") for kind in ("training", "model")]
    knobs = {"steps": 4, "method": "full", "learning_rate": 1e-3}
    assert described.materialize(
        [lora_weights, specialised_model], "coat", {"ops": {"lora_weights": {"config": knobs}}}
    ).success
    training, model = (store.records.latest(kind, "coat") for kind in ("training", "model"))
    assert training.made_of["method"] == "full"
    assert not training.path("fashion_lora_weights.safetensors").exists()
    assert model.json("verification.json")["error"] < 0.1
    for record in before:
        store.records.point(record)


# What it was said to cost


def drawn(run: dg.ExecuteInProcessResult, asset: str) -> int:
    (made,) = run.asset_materializations_for_node(asset)
    return int(made.metadata["images drawn"].value)


def test_a_first_run_draws_no_more_than_it_was_said_to_and_not_much_less(
    described: Chain, full_run: dg.ExecuteInProcessResult
) -> None:
    config = {op: values["config"] for op, values in SMALL["ops"].items()}
    cost = cost_of(
        described.models,
        PHOTOS,
        search=config["generated_samples"],
        training=config["lora_weights"],
        products=config["evaluation_report"]["products"],
        contestants=2,
    )
    really = drawn(full_run, "generated_samples") + drawn(full_run, "evaluation_report")
    assert 0.5 * cost.images <= really <= cost.images
    assert cost.steps == 6 and cost.bytes > denoiser_bytes(described.models.profile.generator) > 1e6


def test_a_run_logs_how_far_it_is(described: Chain, full_run: dg.ExecuteInProcessResult) -> None:
    told = [entry.user_message for entry in described.instance.all_logs(full_run.run_id)]
    assert any((found := progress_in(text)) and found.done == found.total and "images drawn" in text for text in told)


# A training in another process, on the page of the run


def test_progress_and_images_appear_on_the_page_of_the_run(
    described: Chain, full_run: dg.ExecuteInProcessResult
) -> None:
    entries = described.instance.all_logs(full_run.run_id)
    assert any(entry.user_message.startswith("training: step 6 of 6, loss ") for entry in entries)
    events = [entry.dagster_event for entry in entries if entry.dagster_event]
    observed = [e.asset_observation_data.asset_observation for e in events if e.event_type_value == "ASSET_OBSERVATION"]
    assert {each.description for each in observed} == {f"images drawn at step {step:08d}" for step in range(7)}
    assert all("(/fashion/pictures/training/coat/" in each.metadata["images"].value for each in observed)


def test_what_the_process_said_is_the_error_of_the_run(described: Chain, full_run: dg.ExecuteInProcessResult) -> None:
    failed = described.materialize([lora_weights], "coat", {"ops": {"lora_weights": {"config": {"rank": 1000}}}})
    assert not failed.success
    (error,) = errors(failed)
    assert "rank is 1000, but layer" in error and "choose a smaller rank" in error


@pytest.mark.thorough
def test_a_run_leaves_no_pickle_behind(described: Chain, full_run: dg.ExecuteInProcessResult) -> None:
    assert is_pickle(pickle.dumps({"a": 1})) and not is_pickle(b"\x80 no pickle")
    assert full_run.success
    files = [path for path in described.store.root.rglob("*") if path.is_file()]
    assert len(files) > 100 and not [path for path in files if is_pickle(path.read_bytes())]
