import shutil
from collections import namedtuple

import pytest
import torch
from diffusers import UNet2DConditionModel

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.training import costs, finetuning
from fashion_pipeline.ml.training.costs import disk_needed, learning_weights, optimizer_numbers
from fashion_pipeline.ml.training.exports.exporting import export_pipeline
from fashion_pipeline.ml.training.optimizers import optimizer_of
from fashion_pipeline.ml.training.results import TrainingError
from fashion_pipeline_tests.ml.conftest import CPU, finetune

RECIPE = Recipe.of({"rank": 4, "steps": 2, "batch_size": 2})
USAGE = namedtuple("USAGE", "total used free")


def counted(folder, recipe) -> int:
    return sum(weight.numel() for weight in learning_weights(folder, recipe))


@pytest.mark.parametrize("name", ["adamw", "adafactor", "prodigy"])
def test_what_an_optimizer_keeps_is_what_was_counted(name):
    shapes = [(8, 4, 3, 3), (8, 4, 1, 1), (16, 8), (5,)]
    weights = {f"unet.{index}": torch.nn.Parameter(torch.randn(shape)) for index, shape in enumerate(shapes)}
    optimizer = optimizer_of(RECIPE.changed({"optimizer": name}), weights)
    sum(weight.square().sum() for weight in weights.values()).backward()
    optimizer.step()
    kept = [t.numel() for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t) and t.dim()]
    assert sum(kept) == pytest.approx(optimizer_numbers(name, weights.values()))


def test_what_learns_is_counted_without_loading_the_model(generator_folder):
    unet = UNet2DConditionModel.from_pretrained(generator_folder, subfolder="unet")
    whole = sum(weight.numel() for weight in unet.parameters())
    assert counted(generator_folder, RECIPE.changed({"method": "full"})) == whole
    attention = [n for n, m in unet.named_modules() if n.endswith((".to_q", ".to_k", ".to_v", ".to_out.0"))]
    layers = [unet.get_submodule(name).weight for name in attention]
    assert counted(generator_folder, RECIPE) == sum(4 * (w.shape[0] + w.shape[1]) for w in layers)


def test_a_full_disk_is_noticed_before_the_first_step(generator_folder, pairs, tmp_path, monkeypatch):
    needed = disk_needed(generator_folder, RECIPE)
    monkeypatch.setattr(costs.shutil, "disk_usage", lambda path: USAGE(10**12, 0, needed - 1))
    with pytest.raises(TrainingError, match=r"take about 0\.0 GB, but .* has 0\.0 GB free: free some"):
        finetune(generator_folder, pairs[:4], [], RECIPE, tmp_path / "out", CPU)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(costs.shutil, "disk_usage", lambda path: USAGE(10**12, 0, needed + 1))
    assert finetune(generator_folder, pairs[:4], [], RECIPE, tmp_path / "out", CPU).steps_run == 2


def test_what_is_needed_covers_what_is_written(generator_folder, pairs, tmp_path):
    for number, knobs in enumerate(({}, {"method": "full", "ema_decay": 0.9}, {"checkpoints_kept": 1})):
        recipe = RECIPE.changed({"checkpoint_every": 1, "steps": 4} | knobs)
        output = tmp_path / str(number)
        finetune(generator_folder, pairs[:4], [], recipe, output, CPU)
        shutil.rmtree(output / "cache")
        export_pipeline(generator_folder, output, output / "model")
        for part in ("vae", "text_encoder"):  # the base's own
            shutil.rmtree(output / "model" / part)
        written = sum(file.stat().st_size for file in output.rglob("*.safetensors"))
        assert 0.2 * disk_needed(generator_folder, recipe) < written < disk_needed(generator_folder, recipe)


def test_a_card_that_is_too_small_says_what_to_set(generator_folder, pairs, tmp_path, monkeypatch):
    def full(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(finetuning, "squared_errors", full)
    recipe = RECIPE.changed({"method": "full", "batch_size": 4, "gradient_accumulation": 2})
    with pytest.raises(TrainingError) as caught:
        finetune(generator_folder, pairs[:4], [], recipe, tmp_path, CPU)
    assert str(caught.value) == (
        "cpu for tests has too little memory: set batch_size to 1 and gradient_accumulation to 8, which is the same "
        "step, or set gradient_checkpointing to true, or set optimizer to adafactor, or set method to lora, or lower "
        "resolution"
    )
    saved = RECIPE.changed({"gradient_checkpointing": True, "batch_size": 1})
    assert costs.remedies(saved) == "lower resolution"
