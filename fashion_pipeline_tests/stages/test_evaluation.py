"""Verdicts on planted pictures: real photos, encoders and tables, and images that are not what a model drew."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fashion_pipeline.core.catalog.photos import open_photo
from fashion_pipeline.core.rows import Model, Sample, Split
from fashion_pipeline.stages.evaluation import Evaluated, evaluate
from fashion_pipeline_tests.conftest import Chain

TRAINED = ("raw_images", "clip_features", "curated_subset", "lora_weights", "specialised_model")

Plant = Callable[[Path, int], Image.Image]
"""From the photo that a sample is compared with, and a number, the image that takes the sample's place."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """All 160 coats, enough for a verdict, with a LoRA of two steps; what it draws is replaced by each test."""
    from fashion_pipeline_tests.conftest import SAMPLES, make_chain

    chain = make_chain(tmp_path_factory.mktemp("planted") / "data", SAMPLES)
    done = chain.materialize(TRAINED, "coat", {"ops": {"lora_weights": {"config": {"steps": 2}}}})
    assert done.success
    return chain


def judged(chain: Chain, plant: Plant) -> Evaluated:
    """The evaluation of a model that draws what is planted, and no longer what it drew."""
    first = evaluate(chain.store, chain.models, "coat", products=48, report=lambda text: None)
    photos = {photo.id: photo.path for photo in chain.store.photos(chain.store.records.latest("catalog", "coat"))}
    samples = [s for s in Sample.read(first.record.table("evaluation_samples")) if s.model_name == Model.SPECIALISED]
    for number, sample in enumerate(samples):
        chain.store.samples.write(sample.id, plant(Path(photos[sample.reference]), number))
    for file in chain.store.sample_features.paths(["coat"]):
        file.unlink()
    return evaluate(chain.store, chain.models, "coat", products=48, report=lambda text: None)


def blotches(photo: Path, number: int) -> Image.Image:
    """The colours of the photo without its garment, as a model draws that learnt backgrounds."""
    rng = np.random.default_rng(number)
    colours = np.asarray(open_photo(str(photo)).convert("RGB").resize((6, 6), Image.Resampling.BILINEAR)).reshape(36, 3)
    image = Image.fromarray(colours[rng.permutation(36)].reshape(6, 6, 3)).resize((64, 64), Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.GaussianBlur(2))


def other_photos(chain: Chain, style: str, split: str) -> Plant:
    """Real photos of a style and split, in turn."""
    catalog = chain.store.records.latest("catalog", style)
    paths = [photo.path for photo in chain.store.photos(catalog) if photo.split == split]
    return lambda photo, number: open_photo(paths[number % len(paths)]).convert("RGB").resize((64, 64))


def test_blotches_in_the_colours_of_the_style_are_no_improvement(trained: Chain) -> None:
    found = judged(trained, blotches)
    assert found.verdict.name == "broken", found.verdict.reason


def test_real_photos_of_other_products_are_better_than_what_the_original_draws(trained: Chain) -> None:
    found = judged(trained, other_photos(trained, "coat", Split.SEARCH))
    assert found.verdict.name == "better", found.verdict.reason


def test_photos_of_another_garment_are_worse(trained: Chain) -> None:
    assert trained.materialize(("raw_images", "clip_features"), "bag").success
    found = judged(trained, other_photos(trained, "bag", Split.SEARCH))
    assert found.verdict.name in ("broken", "worse"), found.verdict.reason
