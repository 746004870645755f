"""The shipped weights load with the stock libraries alone, stay small, and carry nothing that can run code."""

import json
import tomllib
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, CLIPModel, CLIPProcessor

EMBEDDED = Path(__file__).parents[2] / "fashion_pipeline" / "embedded"
MODELS = ("generator", "encoder", "judge")
LARGEST_TOTAL = 60 * 10**6


def weights() -> list[Path]:
    return sorted(EMBEDDED.rglob("*.safetensors"))


def test_all_weights_together_are_at_most_60_megabytes() -> None:
    assert weights()
    assert sum(path.stat().st_size for path in weights()) <= LARGEST_TOTAL


def test_no_file_is_a_pickle() -> None:
    shipped = {path.suffix for path in EMBEDDED.rglob("*") if path.is_file()}
    assert shipped <= {".safetensors", ".parquet", ".json", ".md", ".png", ".toml", ".py", ".pyc", ".txt"}


def test_weights_are_stored_in_half_precision() -> None:
    for path in weights():
        with path.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        kinds = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
        assert kinds <= {"F16", "I64"}, path


@pytest.mark.parametrize("model", MODELS)
def test_each_model_has_a_card(model: str) -> None:
    card = (EMBEDDED / model / "README.md").read_text(encoding="utf-8")
    for topic in ("## Data", "## Recipe", "## Measured", "## Limits"):
        assert topic in card


def test_the_generator_is_a_complete_pipeline_for_64_pixels() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(EMBEDDED / "generator")
    assert pipeline.unet.config.sample_size * pipeline.vae_scale_factor == 64
    assert pipeline.tokenizer.model_max_length == 77
    assert pipeline.safety_checker is None


@pytest.mark.parametrize("text", ["a black kurta", "Kleid, größe 38 ✨", "漢字", "", "word " * 200])
def test_the_encoder_reads_any_text(text: str) -> None:
    model, processor = (
        CLIPModel.from_pretrained(EMBEDDED / "encoder"),
        CLIPProcessor.from_pretrained(EMBEDDED / "encoder"),
    )
    tokens = processor(text=[text], return_tensors="pt", padding=True, truncation=True)
    assert tokens.input_ids.shape[1] <= 77
    assert model.float().get_text_features(**tokens).pooler_output.isfinite().all()


def test_the_judge_is_loadable_as_backbone_and_as_classifier() -> None:
    assert AutoImageProcessor.from_pretrained(EMBEDDED / "judge")
    assert AutoModel.from_pretrained(EMBEDDED / "judge").config.model_type == "resnet"
    labels = AutoModelForImageClassification.from_pretrained(EMBEDDED / "judge").config.id2label.values()
    assert {label.split(":")[0] for label in labels} == {"garment", "colour"}


def test_the_vocabulary_lists_phrases_for_every_facet() -> None:
    vocabulary = tomllib.loads((EMBEDDED / "vocabulary.toml").read_text(encoding="utf-8"))
    for facet in ("garment", "colour", "audience", "season", "usage"):
        assert vocabulary["templates"][facet]
        assert all(vocabulary[facet].values())
