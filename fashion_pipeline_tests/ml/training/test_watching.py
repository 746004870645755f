"""Knowing when to stop: looks at validation photos, the best weights, early stopping, flat images."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fashion_pipeline.core.prompts.requests import Request
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.families import family_of
from fashion_pipeline.ml.pipelines import load_pipeline
from fashion_pipeline.ml.training import watching
from fashion_pipeline.ml.training.exports.exporting import recipe_of
from fashion_pipeline.ml.training.methods import Parts, merge, restore
from fashion_pipeline.ml.training.results import TrainingError, TrainingJob, TrainingResult, Validation
from fashion_pipeline.ml.training.watching import is_as_close
from fashion_pipeline_tests.ml.conftest import CPU, finetune, job_of
from fashion_pipeline_tests.ml.training.test_finetuning import Killed, kill_after, same

RECIPE = Recipe.of(
    {"steps": 8, "batch_size": 2, "rank": 4, "learning_rate": 5e-3, "sample_every": 2, "checkpoint_every": 3}
)


STRENGTHS = {"-strength-0.5": 0.2, "-strength-1": 0.0, "-strength-1.5": -0.1}
"""By how much a scripted look is closer at a strength."""


@pytest.fixture
def validation(pairs, clip_folder):
    requests = tuple(Request("a coat", "", seed, 2, 3.0, 64, 64) for seed in range(2))
    return Validation(requests, tuple(pairs[4:]), str(clip_folder))


def scripted(monkeypatch: pytest.MonkeyPatch, similarity: dict[int, float]) -> None:
    """Looks are real, but for what the encoder says of them."""
    inside = watching.Watcher.look

    def look(self, parts, step, at_once, also=""):
        seen = similarity[step] + (STRENGTHS[also] if also else 0.0)
        return replace(inside(self, parts, step, at_once, also), similarities=(seen,) * 2)

    monkeypatch.setattr(watching.Watcher, "look", look)


def train(folder, pairs, validation, output, recipe=RECIPE):
    return finetune(folder, pairs[:4], [], recipe, output, CPU, validation=validation)


def test_looks_are_drawn_from_fixed_seeds_and_kept_with_their_similarity(generator_folder, pairs, validation, tmp_path):
    result = train(generator_folder, pairs, validation, tmp_path)
    looks = {row.step: row.similarity for row in result.log if row.similarity is not None}
    assert sorted(looks) == [0, 2, 4, 6, 8]
    assert all(-1 <= similarity <= 1 for similarity in looks.values())
    sheets = sorted((tmp_path / "samples").glob("*.png"))
    assert [sheet.name for sheet in sheets] == [f"step-{step:08d}.png" for step in (0, 2, 4, 6, 8)]
    first, last = (np.asarray(Image.open(sheets[place])).astype(int) for place in (0, -1))
    assert np.abs(first - last).max() > 0
    assert result.step >= max((step for step in looks if step), key=looks.__getitem__)


def test_the_best_weights_are_kept_not_the_last(generator_folder, pairs, validation, tmp_path, monkeypatch):
    scripted(monkeypatch, {0: 0.9, 2: 0.1, 4: 0.5, 6: 0.3, 8: 0.2})
    result = train(generator_folder, pairs, validation, tmp_path / "best")
    assert result.step == 4
    shorter = train(generator_folder, pairs, None, tmp_path / "short", RECIPE.changed({"keep": "last"}))
    assert not same(result.weights, shorter.weights)
    last = train(generator_folder, pairs, validation, tmp_path / "last", RECIPE.changed({"keep": "last"}))
    assert last.step == 8
    assert same(last.weights, shorter.weights)
    assert len(list((tmp_path / "best" / "checkpoints").glob("best-*"))) == 1


def test_a_killed_run_still_knows_its_best_weights(generator_folder, pairs, validation, tmp_path, monkeypatch):
    scripted(monkeypatch, {0: 0.9, 2: 0.1, 4: 0.5, 6: 0.3, 8: 0.2})
    undisturbed = train(generator_folder, pairs, validation, tmp_path / "undisturbed")
    for steps in (5, 1, 2):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, steps)
            train(generator_folder, pairs, validation, tmp_path / "killed")
    resumed = train(generator_folder, pairs, validation, tmp_path / "killed")
    assert resumed.step == 4
    assert same(undisturbed.weights, resumed.weights)


def test_training_stops_when_looks_get_no_better(generator_folder, pairs, validation, tmp_path, monkeypatch):
    scripted(monkeypatch, {0: 0.0, 2: 0.5, 4: 0.4, 6: 0.3, 8: 0.9})
    result = train(generator_folder, pairs, validation, tmp_path, RECIPE.changed({"patience": 2}))
    assert result.log[-1].step == 6
    assert result.step == 2
    assert result.steps_run == 6


def test_flat_images_stop_the_run_with_the_last_good_checkpoint(
    generator_folder, pairs, validation, tmp_path, monkeypatch
):
    inside = watching.Watcher.look

    def look(self, parts, step, at_once):
        return replace(inside(self, parts, step, at_once), flat=step == 4)

    monkeypatch.setattr(watching.Watcher, "look", look)
    with pytest.raises(TrainingError, match=r"every image drawn at step 4 is flat .*step-00000004.png.*step-00000003"):
        train(generator_folder, pairs, validation, tmp_path)


def test_an_image_of_one_colour_counts_as_flat(generator_folder, pairs, validation, tmp_path, monkeypatch):
    monkeypatch.setattr(
        watching.Watcher, "_draw", lambda self, pipeline, parts, requests: [Image.new("RGB", (64, 64))] * len(requests)
    )
    with pytest.raises(TrainingError, match="every image drawn at step 2 is flat"):
        train(generator_folder, pairs, validation, tmp_path)


def test_looking_does_not_change_what_is_learnt(generator_folder, pairs, validation, tmp_path):
    recipe = RECIPE.changed({"keep": "last", "ema_decay": 0.9})
    watched = train(generator_folder, pairs, validation, tmp_path / "watched", recipe)
    blind = train(generator_folder, pairs, None, tmp_path / "blind", recipe)
    assert same(watched.weights, blind.weights)


def test_a_job_written_down_is_the_same_job(pairs, validation, tmp_path):
    job = job_of("base", pairs[:4], pairs[4:], RECIPE, tmp_path, validation=validation)
    job.save(tmp_path / "job.json")
    assert TrainingJob.load(tmp_path / "job.json") == job
    assert json.loads((tmp_path / "job.json").read_text())["recipe"]["rank"] == 4


def test_weights_of_the_average_are_between_first_and_last(generator_folder, pairs, tmp_path):
    recipes = [RECIPE.changed({"ema_decay": decay}) for decay in (0.9, 0.0)]
    averaged, last = (
        load_file(train(generator_folder, pairs, None, tmp_path / str(index), recipe).weights)
        for index, recipe in enumerate(recipes)
    )
    moved = [name for name in last if "lora_B" in name]
    assert sum(float(averaged[name].norm()) for name in moved) < sum(float(last[name].norm()) for name in moved)
    assert all(torch.sign(averaged[n]).eq(torch.sign(last[n])).float().mean() > 0.6 for n in moved)


def test_of_looks_that_noise_cannot_tell_apart_the_latest_counts():
    closest = [0.5, 0.7, 0.6, 0.8]
    assert is_as_close([0.6, 0.5, 0.7, 0.7], closest)  # 0.025 behind, standard error 0.075
    assert not is_as_close([0.45, 0.66, 0.55, 0.74], closest)  # 0.05 behind each, standard error 0.004
    assert is_as_close(closest, closest)


@pytest.mark.parametrize("method", ["lora", "loha", "lokr"])
def test_the_strength_that_comes_closest_is_what_is_kept(
    generator_folder, pairs, validation, tmp_path, monkeypatch, method
):
    scripted(monkeypatch, dict.fromkeys((0, 2, 4, 6, 8), 0.5))
    recipe = RECIPE.changed({"method": method})
    plain = train(generator_folder, pairs, validation, tmp_path / "plain", recipe)
    found = train(generator_folder, pairs, validation, tmp_path / "found", recipe.changed({"strengths": (0.5, 1.5)}))
    assert (plain.strength, found.strength, found.step) == (1.0, 0.5, plain.step)
    assert "strength 0.5 is kept" in found.notes[-1]
    assert "0.5: 0.700, 1: 0.500, 1.5: 0.400" in found.notes[-1]
    sheets = {file.name for file in (tmp_path / "found" / "samples").glob("*-strength-*")}
    assert sheets == {f"step-00000008{name}.png" for name in STRENGTHS}
    assert TrainingResult.load(tmp_path / "found" / "result.json").strength == 0.5
    whole, half = (changes(generator_folder, result) for result in (plain, found))
    for name, change in whole.items():
        torch.testing.assert_close(half[name], change / 2, atol=1e-6, rtol=1e-4)
    assert any(change.abs().max() > 1e-4 for change in whole.values())


def test_a_strength_that_noise_cannot_tell_from_one_is_not_taken(
    generator_folder, pairs, validation, tmp_path, monkeypatch
):
    scripted(monkeypatch, dict.fromkeys((0, 2, 4, 6, 8), 0.5))
    monkeypatch.setitem(STRENGTHS, "-strength-0.5", 0.0)
    recipe = RECIPE.changed({"strengths": (0.5,)})
    assert train(generator_folder, pairs, validation, tmp_path, recipe).strength == 1.0


def changes(folder, result):
    """What a training changes of each weight, once merged."""
    pipeline = load_pipeline(folder)
    before = {name: weight.detach().clone() for name, weight in pipeline.unet.named_parameters()}
    recipe = recipe_of(result)
    parts = Parts.of(family_of(folder), recipe, partial(getattr, pipeline))
    restore(parts, recipe, load_file(result.weights))
    merge(parts)
    return {name: weight.detach() - before[name] for name, weight in pipeline.unet.named_parameters()}
