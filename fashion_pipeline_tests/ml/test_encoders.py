import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    ConvNextImageProcessorPil,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from fashion_pipeline.ml import encoders
from fashion_pipeline.ml.encoders import load_clip, load_judge
from fashion_pipeline.ml.files import fingerprint
from fashion_pipeline_tests.ml.conftest import CPU


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3), np.uint8)) for i in range(35)]


@pytest.fixture(scope="module", params=["clip", "siglip", "siglip2", "judge", "dinov3"])
def encoder(request: pytest.FixtureRequest):
    folder = request.getfixturevalue(f"{request.param}_folder")
    return (load_judge if request.param in ("judge", "dinov3") else load_clip)(folder, CPU)


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_siglip_embeds_as_the_whole_model_does(request, kind, images):
    folder = request.getfixturevalue(f"{kind}_folder")
    encoder, model = load_clip(folder, CPU), AutoModel.from_pretrained(folder)
    texts = ["a red coat", "shoe"]
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", max_length=encoder.text_limit, return_tensors="pt"
    )
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(images=images[:2], return_tensors="pt")
    with torch.no_grad():
        whole = model(input_ids=tokens["input_ids"], **pixels)
    np.testing.assert_allclose(encoder.embed_texts(texts), whole.text_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(encoder.embed_images(images[:2]), whole.image_embeds.numpy(), atol=1e-5)
    cosines = encoder.embed_images(images[:2]) @ encoder.embed_texts(texts).T
    softmax = torch.softmax(torch.tensor(encoder.logit_scale * cosines), dim=1)
    np.testing.assert_allclose(softmax, torch.softmax(whole.logits_per_image, dim=1), atol=1e-4)


def test_a_model_that_reads_no_texts_is_no_encoder(judge_folder):
    with pytest.raises(ValueError, match=r"is a resnet, which does not read texts, or is not known: name a clip, sig"):
        load_clip(judge_folder, CPU)


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


@pytest.fixture(scope="module")
def labelled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge that was trained on labels, whose class has a pooler that its files know nothing of."""
    torch.manual_seed(3)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = ViTForImageClassification(ViTConfig(**small, image_size=32, patch_size=8, num_labels=3))
    folder = tmp_path_factory.mktemp("models") / "labelled"
    for part in (model, ViTImageProcessorPil(size={"height": 32, "width": 32})):
        part.save_pretrained(folder)
    return folder


def test_a_judge_without_a_trained_pooler_sees_the_same_at_each_load(labelled_folder, images):
    first, second = (load_judge(labelled_folder, CPU) for _ in range(2))
    rows = first.embed_images(images)
    assert np.array_equal(rows, second.embed_images(images)) and first.fingerprint == second.fingerprint
    model = ViTForImageClassification.from_pretrained(labelled_folder).eval()
    with torch.inference_mode():
        token = model.vit(first._pixels(images[:1])["pixel_values"]).last_hidden_state[0, 0]
    assert np.allclose(rows[0], token / token.norm(), atol=1e-5), "what its own head reads"
    assert first.fingerprint != fingerprint(labelled_folder), "a random pooler's embeddings are under that name"


@pytest.mark.parametrize("load", [load_clip, load_judge])
def test_a_model_that_lacks_weights_is_refused_and_they_are_named(load, clip_folder, judge_folder, tmp_path):
    folder = shutil.copytree(clip_folder if load is load_clip else judge_folder, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in sorted(tensors) if "weight" in name and "layer" in name)
    save_file({n: t for n, t in tensors.items() if n != gone}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"has no weights for .*which would be left untrained: give a complete model"):
        load(folder, CPU)


def test_images_are_scaled_by_pillow_whatever_else_is_installed(clip_folder, judge_folder, monkeypatch):
    for load, folder in ((load_clip, clip_folder), (load_judge, judge_folder)):
        assert type(load(folder, CPU)._processor).__name__.endswith("Pil")
    plain = load_judge(judge_folder, CPU).fingerprint

    class Other(ConvNextImageProcessorPil):
        """One that scales by another library, since it knows no Pillow."""

    monkeypatch.setattr(encoders, "_processor", lambda folder: Other.from_pretrained(folder))
    assert load_judge(judge_folder, CPU).fingerprint != plain
