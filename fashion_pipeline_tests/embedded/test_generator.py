"""What the embedded generator draws: the right size, the same image for the same seed, the garment asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

EMBEDDED = Path(__file__).parents[2] / "fashion_pipeline" / "embedded"
GARMENTS = ("a t-shirt", "a watch", "a handbag", "sunglasses")


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(EMBEDDED / "generator", dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def draw(pipeline: StableDiffusionPipeline, prompts: list[str], steps: int = 16) -> list[Image.Image]:
    seeds = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    return pipeline(prompts, num_inference_steps=steps, guidance_scale=5.0, generator=seeds).images


def test_images_are_64_pixels_without_being_asked(pipeline: StableDiffusionPipeline) -> None:
    assert draw(pipeline, ["a photo of a blue shirt"], steps=2)[0].size == (64, 64)


def test_the_same_seed_draws_the_same_image(pipeline: StableDiffusionPipeline) -> None:
    first, second = (np.asarray(draw(pipeline, ["a photo of a blue shirt"], steps=4)[0]) for _ in range(2))
    assert np.array_equal(first, second)


def test_the_encoder_recognises_garments_the_generator_draws(pipeline: StableDiffusionPipeline) -> None:
    asked = [garment for garment in GARMENTS for _ in range(4)]
    images = draw(pipeline, [f"a photo of {garment}" for garment in asked])
    model, processor = (
        CLIPModel.from_pretrained(EMBEDDED / "encoder").float(),
        CLIPProcessor.from_pretrained(EMBEDDED / "encoder"),
    )
    inputs = processor(
        text=[f"a photo of {garment}" for garment in GARMENTS], images=images, return_tensors="pt", padding=True
    )
    with torch.no_grad():
        answers = model(**inputs).logits_per_image.argmax(1).tolist()
    right = sum(GARMENTS[answer] == garment for answer, garment in zip(answers, asked, strict=True))
    assert right >= 12, f"{right} of {len(asked)}"
