import shutil

import numpy as np
import pytest
from PIL import Image

from fashion_pipeline.ml.encoders import load_clip, load_judge
from fashion_pipeline_tests.ml.conftest import CPU


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3), np.uint8)) for i in range(35)]


@pytest.fixture(scope="module", params=["clip", "judge"])
def encoder(request: pytest.FixtureRequest, clip_folder, judge_folder):
    return load_clip(clip_folder, CPU) if request.param == "clip" else load_judge(judge_folder, CPU)


def test_rows_are_float32_unit_vectors(encoder, images):
    rows = encoder.embed_images(images)
    assert rows.shape == (35, encoder.dim)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_a_row_does_not_depend_on_its_neighbours(encoder, images):
    together = encoder.embed_images(images)
    alone = np.concatenate([encoder.embed_images([image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_no_images_give_no_rows(encoder):
    assert encoder.embed_images([]).shape == (0, encoder.dim)


def test_grey_and_transparent_images_are_taken(encoder, images):
    others = [images[0].convert("L"), images[0].convert("RGBA")]
    assert np.isfinite(encoder.embed_images(others)).all()


def test_texts_are_unit_vectors_whatever_their_length(clip_folder):
    encoder = load_clip(clip_folder, CPU)
    rows = encoder.embed_texts(["a red coat", "", "long " * 100])
    assert rows.shape == (3, encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows[0], encoder.embed_texts(["a red coat"])[0], atol=1e-5)
    assert encoder.token_count("abc") == 5
    assert encoder.token_count("long " * 100) > encoder.text_limit == 77
    assert encoder.logit_scale == pytest.approx(14.3, rel=0.01)


def test_the_fingerprint_is_of_the_content_not_the_place(clip_folder, judge_folder, tmp_path):
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    original = load_clip(clip_folder, CPU).fingerprint
    assert load_clip(copy, CPU).fingerprint == original
    assert load_judge(judge_folder, CPU).fingerprint != original
    (copy / "preprocessor_config.json").write_text((copy / "preprocessor_config.json").read_text() + " ")
    assert load_clip(copy, CPU).fingerprint != original


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a model folder"):
        load_clip(tmp_path / "nowhere", CPU)


@pytest.mark.parametrize("load", [load_clip, load_judge])
def test_an_encoder_that_sees_photos_whole_sees_their_ends(load, clip_folder, judge_folder):
    folder = clip_folder if load is load_clip else judge_folder
    plain = Image.new("RGB", (40, 80), "white")
    shod = plain.copy()
    shod.paste("blue", (10, 72, 30, 78))
    middle, whole = load(folder, CPU), load(folder, CPU, whole=True)
    seen = {name: encoder.embed_images([plain, shod]) for name, encoder in (("middle", middle), ("whole", whole))}
    assert np.array_equal(*seen["middle"])
    assert np.abs(np.subtract(*seen["whole"])).max() > 1e-4
    by_hand = Image.new("RGB", (80, 80), "white")
    by_hand.paste(shod, (20, 0))
    assert np.allclose(seen["whole"][1], middle.embed_images([by_hand])[0], atol=1e-5)
    assert middle.fingerprint != whole.fingerprint
