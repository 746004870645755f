import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.training.data.shapes import bucket_of, buckets, shaped
from fashion_pipeline.ml.training.results import TrainingError, TrainingPair
from fashion_pipeline_tests.ml.conftest import CPU, finetune


def photo(width: int, height: int) -> Image.Image:
    """White, with a red head on top and blue shoes below."""
    image = Image.new("RGB", (width, height), "white")
    image.paste("red", (width // 3, 2, 2 * width // 3, height // 8))
    image.paste("blue", (width // 3, height - height // 8, 2 * width // 3, height - 2))
    return image


def colours(image: Image.Image) -> set[str]:
    pixels = [image.getpixel((x, y)) for x in range(image.width) for y in range(image.height)]
    named = {"red": (200, 60, 60), "blue": (60, 60, 200)}
    return {
        name
        for name, limit in named.items()
        if any(all((p > 190) == (limit_ > 190) for p, limit_ in zip(pixel, limit, strict=True)) for pixel in pixels)
    }


def test_padding_keeps_head_and_shoes_that_cropping_cuts_off():
    tall = photo(60, 120)
    assert colours(shaped(tall, Recipe(fit="crop"), 64, 16)) == set()
    padded = shaped(tall, Recipe(fit="pad"), 64, 16)
    assert padded.size == (64, 64)
    assert colours(padded) == {"red", "blue"}
    assert padded.getpixel((1, 32)) == (255, 255, 255)


def test_padding_goes_on_in_the_colour_of_the_edges():
    grey = Image.new("RGB", (60, 120), (90, 100, 110))
    assert shaped(grey, Recipe(fit="pad"), 64, 16).getpixel((0, 0)) == (90, 100, 110)


def test_buckets_have_the_area_of_the_square_and_sides_that_the_model_can_halve():
    found = buckets(512, 64)
    assert (512, 512) in found and (448, 576) in found and (384, 640) in found
    assert all(width % 64 == height % 64 == 0 for width, height in found)
    assert all(0.75 * 512**2 <= width * height <= 512**2 for width, height in found)
    assert bucket_of((600, 800), found) == (448, 576)
    assert bucket_of((800, 600), found) == (576, 448)
    assert bucket_of((100, 900), found) == (320, 640)
    assert {(height, width) for width, height in found} == set(found)


def test_photos_of_many_shapes_train_in_buckets(generator_folder, tmp_path):
    sizes = [(64, 64), (80, 128), (128, 80), (64, 64), (80, 128)]
    names = [TrainingPair(f"{width}x{height}", "a coat") for width, height in sizes]
    recipe = Recipe.of({"steps": 6, "batch_size": 2, "rank": 4, "fit": "buckets", "resolution": 128})

    def load(name: str) -> Image.Image:
        return photo(*map(int, name.split("x")))

    result = finetune(generator_folder, names, names[:3], recipe, tmp_path, CPU, load_image=load)
    shapes = set()
    for file in (tmp_path / "cache").glob("*.safetensors"):
        shapes |= {tuple(tensor.shape[1:]) for tensor in load_file(file).values() if tensor.dim() == 3}
    assert len(shapes) == 3 and all(torch.tensor(shape).prod() <= 32 * 32 for shape in shapes)
    assert result.notes == (
        "3 photos are smaller than 128 pixels and were enlarged",
        "all captions are alike: the model learns this one prompt, and nothing to steer it by",
    )


def test_a_resolution_that_the_model_cannot_halve_is_refused(generator_folder, pairs, tmp_path):
    with pytest.raises(TrainingError, match="resolution is 100: choose a multiple of 8"):
        finetune(generator_folder, pairs[:2], [], Recipe.of({"resolution": 100, "rank": 4}), tmp_path, CPU)
