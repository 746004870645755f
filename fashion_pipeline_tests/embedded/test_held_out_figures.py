"""The encoder's and the judge's figures on photos that no embedded model was trained on; skipped without the photos."""

import csv
import os
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score
from transformers import AutoImageProcessor, AutoModelForImageClassification, CLIPModel, CLIPProcessor

from fashion_pipeline.core.catalog.splits import split_of

EMBEDDED = Path(__file__).parents[2] / "fashion_pipeline" / "embedded"
PHOTOS = os.environ.get("FASHION_PRODUCT_PHOTOS")
COLUMNS = {"garment": "articleType", "colour": "baseColour"}
RARE = 20

pytestmark = pytest.mark.skipif(PHOTOS is None, reason="FASHION_PRODUCT_PHOTOS names no folder of product photos")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (Path(str(PHOTOS)) / "styles.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def held_out(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """A photo whose own id falls into `test` is held out whatever group it belongs to."""
    return [row for row in rows if split_of(row["id"]) == "test"]


@pytest.fixture(scope="module")
def images(held_out: list[dict[str, str]]) -> list[Image.Image]:
    return [Image.open(Path(str(PHOTOS)) / "images" / f"{row['id']}.jpg").convert("RGB") for row in held_out]


def values_of(facet: str, rows: list[dict[str, str]]) -> list[str]:
    """The values scored: garments of 20 photos or more, and every colour that was taught."""
    taught = list(tomllib.loads((EMBEDDED / "vocabulary.toml").read_text(encoding="utf-8"))[facet])
    counts = Counter(row[COLUMNS[facet]] for row in rows)
    return [value for value in taught if facet == "colour" or counts[value] >= RARE]


@pytest.fixture(scope="module")
def zero_shot(rows: list[dict[str, str]], images: list[Image.Image]) -> dict[str, list[str]]:
    """The encoder's answer for each facet: the first phrase of a value in the facet's first template."""
    vocabulary = tomllib.loads((EMBEDDED / "vocabulary.toml").read_text(encoding="utf-8"))
    model, processor = (
        CLIPModel.from_pretrained(EMBEDDED / "encoder").float(),
        CLIPProcessor.from_pretrained(EMBEDDED / "encoder"),
    )
    answers = {}
    for facet in COLUMNS:
        values = values_of(facet, rows)
        texts = [vocabulary["templates"][facet][0].format(vocabulary[facet][value][0]) for value in values]
        with torch.no_grad():
            logits = model(**processor(text=texts, images=images, return_tensors="pt", padding=True)).logits_per_image
        answers[facet] = [values[index] for index in logits.argmax(1).tolist()]
    return answers


def scored(
    facet: str, rows: list[dict[str, str]], held_out: list[dict[str, str]], answers: list[str]
) -> tuple[list[str], list[str]]:
    """Truth and answer for the held-out photos whose value is scored."""
    values = values_of(facet, rows)
    pairs = [
        (row[COLUMNS[facet]], answer)
        for row, answer in zip(held_out, answers, strict=True)
        if row[COLUMNS[facet]] in values
    ]
    return [truth for truth, _ in pairs], [answer for _, answer in pairs]


def test_the_encoder_names_the_garment(rows, held_out, zero_shot) -> None:
    truth, given = scored("garment", rows, held_out, zero_shot["garment"])
    assert f1_score(truth, given, average="weighted", zero_division=0) >= 0.73


def test_the_encoder_names_the_colour(rows, held_out, zero_shot) -> None:
    truth, given = scored("colour", rows, held_out, zero_shot["colour"])
    assert sum(a == b for a, b in zip(truth, given, strict=True)) / len(truth) >= 0.55


def test_the_judge_names_the_garment(rows, held_out, images) -> None:
    model = AutoModelForImageClassification.from_pretrained(EMBEDDED / "judge").float()
    inputs = AutoImageProcessor.from_pretrained(EMBEDDED / "judge")(images=images, return_tensors="pt")
    places = [index for index, label in model.config.id2label.items() if label.startswith("garment:")]
    with torch.no_grad():
        best = model(**inputs).logits[:, places].argmax(1).tolist()
    answers = [model.config.id2label[places[index]].split(":", 1)[1] for index in best]
    truth, given = scored("garment", rows, held_out, answers)
    assert f1_score(truth, given, average="weighted", zero_division=0) >= 0.73
