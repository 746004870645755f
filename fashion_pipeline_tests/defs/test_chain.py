import json
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image

from fashion_pipeline.core.features import FeatureIndex
from fashion_pipeline.core.tables import TABLES
from fashion_pipeline.defs.jobs import ASSETS, CATALOG, FINETUNING, PROMPTS
from fashion_pipeline_tests.defs.conftest import SMALL, Chain, make_chain


def value(result: dg.ExecuteInProcessResult, asset: str, name: str) -> object:
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset)]
    return event.materialization.metadata[name].value


def test_every_asset_is_materialised_and_every_table_is_written(described: Chain, full_run) -> None:
    assert full_run.success
    made = {event.asset_key.path[-1] for event in full_run.get_asset_materialization_events()}
    assert made >= {asset.key.path[-1] for asset in ASSETS} - {"published_model"}
    assert all(described.storage.read(table, "coat").num_rows for table in TABLES if table != "rejects")


def test_no_blocking_check_failed(full_run) -> None:
    evaluations = full_run.get_asset_check_evaluations()
    assert len(evaluations) > 15
    assert [e.check_name for e in evaluations if not e.passed and e.severity == dg.AssetCheckSeverity.ERROR] == []


def test_a_second_run_draws_no_image_and_trains_no_step(second_run) -> None:
    assert second_run.success
    assert value(second_run, "generated_samples", "images drawn") == 0
    assert value(second_run, "evaluation_report", "images drawn") == 0
    assert value(second_run, "lora_weights", "steps run") == 0
    assert value(second_run, "clip_features", "embeddings computed") == 0


def test_the_report_has_the_promised_fields(described: Chain, full_run) -> None:
    report = described.storage.read_report("coat", "evaluation_report.json")
    assert report["style"] == "coat"
    assert report["verdict"] in ("better", "worse", "hacked", "no evidence")
    assert {(s["model"], s["prompt"], s["encoder"]) for s in report["scores"]} == {
        (m, p, e) for m in ("original", "specialised") for p in ("plain", "best") for e in ("encoder", "judge")
    }
    scores = described.storage.read("scores", "coat").to_pylist()
    best = [
        s["cosine"]
        for s in scores
        if (s["model"], s["prompt"], s["encoder"], s["split"]) == ("original", "best", "encoder", "test")
    ]
    assert report["similarity_score"] == pytest.approx(np.mean(best), abs=1e-6)


def test_scores_are_the_cosines_of_the_images_on_disk(described: Chain, full_run) -> None:
    row = described.storage.read("evaluation_samples", "coat").to_pylist()[0]
    photo = next(p for p in described.storage.read("images", "coat").to_pylist() if p["id"] == row["reference"])
    with described.models.encoder() as encoder:
        drawn, real = encoder.embed_images(
            [Image.open(described.storage.sample_path(row["id"])), Image.open(photo["path"]).convert("RGB")]
        )
    found = [
        s["cosine"]
        for s in described.storage.read("scores", "coat").to_pylist()
        if (s["model"], s["prompt"], s["encoder"], s["split"], s["product_group"])
        == (row["model_name"], row["prompt_name"], "encoder", row["split"], row["product_group"])
    ]
    assert found == [pytest.approx(float(drawn @ real), abs=1e-4)]


def test_no_held_out_photo_is_trained_on(described: Chain, full_run) -> None:
    splits = {row["id"]: row["split"] for row in described.storage.read("images", "coat").to_pylist()}
    pairs = described.storage.read("training_pairs", "coat").to_pylist()
    assert {splits[row["id"]] for row in pairs if row["origin"] == "reference"} == {"search"}


def test_all_conditions_of_a_product_share_a_seed(described: Chain, full_run) -> None:
    seeds: dict[str, set[int]] = {}
    for row in described.storage.read("evaluation_samples", "coat").to_pylist():
        seeds.setdefault(row["product_group"], set()).add(row["seed"])
    assert all(len(found) == 1 for found in seeds.values())
    assert len({seed for found in seeds.values() for seed in found}) == len(seeds)


def test_the_specialised_model_loads_with_stock_diffusers(described: Chain, full_run) -> None:
    from diffusers import StableDiffusionPipeline

    key = described.storage.read_report("coat", "training.json")["key"]
    pipeline = StableDiffusionPipeline.from_pretrained(described.storage.model_folder("coat", key), safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a photo of a coat", num_inference_steps=2).images[0].size == (64, 64)


def test_the_page_shows_pictures_and_asks_for_nothing_from_elsewhere(described: Chain, full_run) -> None:
    page = described.storage.report_path("coat", "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") > 8
    assert "<script" not in page
    assert 'src="http' not in page


def test_nothing_is_published_without_the_verdict_better(described: Chain, full_run) -> None:
    report = described.storage.read_report("coat", "evaluation_report.json")
    assert (described.storage.champion("coat") is not None) == (report["verdict"] == "better")


def test_a_better_model_is_published_complete(described: Chain, full_run) -> None:
    storage = described.storage
    report = storage.read_report("coat", "evaluation_report.json")
    storage.write_report("coat", "evaluation_report.json", report | {"verdict": "better", "reason": "planted"})
    try:
        result = described.materialize([a for a in FINETUNING if a.key.path[-1] == "published_model"], "coat")
    finally:
        storage.write_report("coat", "evaluation_report.json", report)
    assert result.success
    champion = storage.champion("coat")
    assert champion is not None
    names = {path.name for path in champion.iterdir()}
    assert names >= {"model_index.json", "README.md", "report.html", "fashion_lora_weights.safetensors", "unet", "vae"}
    assert json.loads((champion / "evaluation_report.json").read_text())["verdict"] == "better"


def test_sql_reads_all_styles(described: Chain, full_run) -> None:
    counted = described.storage.sql("SELECT style, count(*) AS n FROM images GROUP BY style ORDER BY style").to_pylist()
    assert counted == [{"style": "bag", "n": 48}, {"style": "coat", "n": 48}]


def test_prompt_optimisation_runs_without_training(described: Chain) -> None:
    small = {"ops": {"generated_samples": SMALL["ops"]["generated_samples"]}}
    assert described.materialize(PROMPTS, "bag", small).success
    report = described.storage.read_report("bag", "prompt_report.json")
    assert report["verdict"] is None
    assert report["similarity_score"] is not None


def test_embeddings_are_of_the_photos_they_are_filed_under(described: Chain) -> None:
    rows = described.storage.read("images", "coat").to_pylist()[:4]
    with described.models.judge() as judge:
        expected = judge.embed_images([Image.open(row["path"]).convert("RGB") for row in rows])
        stored = FeatureIndex(described.storage.read("features", "coat"), "judge", judge.fingerprint)
    assert np.abs(stored.rows([row["id"] for row in rows]) - expected).max() < 1e-4


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
    reasons = chain.storage.read("rejects", "coat").to_pylist()
    assert any("truncated.png" in row["path"] for row in reasons)
    assert chain.storage.read("images", "coat").num_rows == 12


def test_a_style_with_three_photos_fails_with_one_message_that_names_the_mend(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "coat"
    folder.mkdir(parents=True)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{number}.png")
    chain = make_chain(tmp_path / "data", tmp_path / "photos")
    result = chain.materialize([CATALOG[0]], "coat")
    assert not result.success
    (failure,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    assert "3 usable photos" in failure.step_failure_data.error.cause.message


def test_only_search_photos_can_shape_a_prompt(described: Chain) -> None:
    images = described.storage.read("images", "coat")
    assert 0 < images.filter(pc.field("split") == "search").num_rows < images.num_rows
