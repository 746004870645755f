"""Photos with the blur of the autoencoder: several at a time, whatever their number, order and the memory there is."""

import numpy as np
import pytest
import torch
from PIL import Image

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.autoencoding import AT_ONCE, Autoencoder
from fashion_pipeline_tests.ml.conftest import CPU


@pytest.fixture
def photos() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = [(64, 64), (64, 64), (96, 48), (64, 64), (48, 96), (48, 96), (64, 64)]
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)) for w, h in sizes]


@pytest.mark.parametrize("fit", ["crop", "buckets"])
def test_photos_come_back_in_order_as_they_do_alone(generator_folder, photos, fit) -> None:
    autoencoder = Autoencoder(generator_folder, CPU, Recipe.of({"fit": fit}))
    together = list(autoencoder.pass_through(photos))
    alone = [next(autoencoder.pass_through([photo])) for photo in photos]
    assert [image.size for image in together] == [image.size for image in alone]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1


def test_several_are_passed_through_at_a_time_and_fewer_where_memory_runs_out(generator_folder, photos, monkeypatch):
    autoencoder = Autoencoder(generator_folder, CPU, Recipe())
    inside, sizes = autoencoder._vae.encode, []

    def small_memory(pixels: torch.Tensor):
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise RuntimeError("MPS backend out of memory")
        return inside(pixels)

    monkeypatch.setattr(autoencoder._vae, "encode", small_memory)
    assert len(list(autoencoder.pass_through(photos))) == len(photos)
    assert sizes[0] == AT_ONCE and max(sizes[1:]) == 2, "it is not tried again with each batch"
