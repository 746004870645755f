"""What is believed of an encoder: nothing where it does not see garments, and no more than its answers are worth."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_pipeline.core.rows import Role
from fashion_pipeline.defs.automation.jobs import CATALOG
from fashion_pipeline.stages.catalog.features import attributes_believed, describe, sight_of, style_attributes
from fashion_pipeline.stages.prompts.candidates import write_candidates
from fashion_pipeline.stages.prompts.captions import photo_captions
from fashion_pipeline_tests.conftest import SAMPLES, Chain, make_chain


def blotches(seed: int) -> Image.Image:
    """Colours that run into each other and show nothing, in pieces and whole."""
    colours = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    return Image.fromarray(colours).resize((64, 64), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def without_garments(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A style of 96 pictures that show no garment."""
    root = tmp_path_factory.mktemp("blind")
    (root / "photos" / "coat").mkdir(parents=True)
    for number in range(96):
        blotches(number).save(root / "photos" / "coat" / f"{number}.png")
    chain = make_chain(root / "data", root / "photos")
    assert chain.materialize(CATALOG, "coat").success
    return chain


def test_the_check_of_clip_features_says_so(without_garments: Chain) -> None:
    done = without_garments.materialize(CATALOG, "coat")
    (event,) = [e for e in done.get_asset_check_evaluations() if e.check_name == "garments_seen"]
    assert not event.passed


def test_photos_without_garments_are_told_from_coats(without_garments: Chain, described: Chain) -> None:
    for chain, seen in ((without_garments, False), (described, True)):
        features = chain.store.records.latest("features", "coat")
        assert sight_of(features)[Role.ENCODER].believed is seen
        assert attributes_believed(features) is seen
        assert bool(style_attributes(chain.store, chain.models, features)) is seen


def test_where_the_encoder_sees_no_garment_prompts_and_captions_name_none(without_garments: Chain) -> None:
    chain = without_garments
    written = write_candidates(chain.store, chain.models, "coat")
    assert [candidate.prompt for candidate in written.candidates] == ["a photo of a coat"]
    features = chain.store.records.latest("features", "coat")
    captions = photo_captions(chain.store, chain.models, features, "all_attributes")
    assert set(captions.values()) == {("a photo of a coat",)}


def test_a_report_on_such_photos_says_so_first(without_garments: Chain) -> None:
    chain = without_garments
    search = {"ops": {"generated_samples": {"config": {"budget": 8, "held_out_products": 2}}}}
    wanted = ("prompt_candidates", "generated_samples", "similarity_table", "prompt_report")
    assert chain.materialize(wanted, "coat", search).success
    page = chain.store.records.latest("prompt_report", "coat").path("report.html").read_text()
    assert page.index("Scores say nothing about garments here") < page.index("<details")


def test_a_temperature_is_fitted_where_answers_came_with_the_photos(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    rows = []
    for style, garment in (("coat", "Jackets"), ("bag", "handbags")):
        for photo in sorted((SAMPLES / style).glob("*.png"))[:60]:
            shutil.copy(photo, tmp_path / "photos" / f"{style}-{photo.name}")
            rows.append({"style": "mixed", "path": f"{style}-{photo.name}", "garment": garment})
    with (tmp_path / "photos" / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    chain = make_chain(tmp_path / "data", tmp_path / "photos" / "manifest.csv")
    assert chain.materialize(("raw_images",), "mixed").success
    found = describe(chain.store, chain.models, "mixed", lambda text: None)
    assert found.calibrations.keys() == {"garment"}
    fitted = found.calibrations["garment"]
    assert fitted.error_after < fitted.error_before
    assert found.record.made_of["temperatures"] == {"garment": fitted.temperature}
