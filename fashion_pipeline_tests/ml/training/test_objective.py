"""What a step minimises and what it sees."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.families import Texts
from fashion_pipeline.ml.training.data.batches import TrainingData
from fashion_pipeline.ml.training.objective import Diffusion, held_out_batches, min_snr_weights


def snr(scheduler: DDPMScheduler, timesteps: torch.Tensor) -> torch.Tensor:
    kept = scheduler.alphas_cumprod[timesteps].double()
    return kept / (1 - kept)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_timesteps_weigh_as_in_the_paper(kind: str) -> None:
    scheduler = DDPMScheduler(prediction_type=kind)
    timesteps = torch.arange(0, 1000, 37)
    ratio = snr(scheduler, timesteps)
    below = ratio if kind == "epsilon" else ratio + 1
    weights = min_snr_weights(scheduler, timesteps, 5.0)
    assert torch.allclose(weights.double(), torch.minimum(ratio, torch.tensor(5.0)) / below, rtol=1e-4)
    assert float(ratio.max()) > 5.0, "there are steps that the cap is for"


def test_without_gamma_all_timesteps_weigh_the_same() -> None:
    assert min_snr_weights(SimpleNamespace(), torch.arange(4), 0.0).tolist() == [1.0] * 4


def as_it_is(latents: torch.Tensor) -> torch.Tensor:
    return latents


def told(value: float) -> Texts:
    return {"prompt_embeds": torch.full((3, 4), value)}


def data(pairs: int) -> TrainingData:
    views = [[torch.full((8, 2, 2), float(pair)), torch.full((8, 2, 2), -float(pair) - 1)] for pair in range(pairs)]
    texts = [[told(float(pair) + 1)] for pair in range(pairs)]
    return TrainingData(views, texts, told(0.0), [], normalised=as_it_is, objective=Diffusion(DDPMScheduler()))


def empty_share(dropout: float) -> float:
    recipe = Recipe(caption_dropout=dropout, batch_size=50, steps=40)
    batches = [data(10).batch(recipe, step) for step in range(40)]
    empty = [bool((text == 0).all()) for batch in batches for text in batch.texts["prompt_embeds"]]
    return sum(empty) / len(empty)


def test_the_share_of_captions_left_empty_is_the_one_asked_for() -> None:
    assert empty_share(0.0) == 0.0
    assert empty_share(1.0) == 1.0
    assert empty_share(0.1) == pytest.approx(0.1, abs=0.03)


def test_every_pair_is_seen_once_an_epoch_with_its_own_caption() -> None:
    recipe = Recipe(caption_dropout=0.0, batch_size=5, steps=40, horizontal_flip=False)
    found = data(10)
    epoch = torch.cat([found.batch(recipe, step).texts["prompt_embeds"][:, 0, 0] for step in (0, 1)]).tolist()
    following = torch.cat([found.batch(recipe, step).texts["prompt_embeds"][:, 0, 0] for step in (2, 3)]).tolist()
    assert sorted(epoch) == sorted(following) == [float(pair) + 1 for pair in range(10)]
    assert epoch != following


def test_what_a_step_sees_depends_on_seed_and_step_alone() -> None:
    recipe = Recipe(batch_size=4)
    one, again, other = (data(6).batch(recipe, step) for step in (3, 3, 4))
    assert torch.equal(one.noise, again.noise) and torch.equal(one.timesteps, again.timesteps)
    assert not torch.equal(one.noise, other.noise)
    assert not torch.equal(one.noise, data(6).batch(recipe.changed({"seed": 1}), 3).noise)


def test_the_held_out_loss_is_measured_at_timesteps_spread_over_the_whole_schedule() -> None:
    moments = [torch.zeros(8, 2, 2) for _ in range(5)]
    texts = [told(0.0) for _ in range(5)]
    batches = held_out_batches(moments, texts, 1000, as_it_is, 8)
    timesteps = torch.cat([batch.timesteps for batch in batches])
    assert sorted(timesteps.tolist()) == [25 + 50 * k for k in range(20)]
    again = held_out_batches(moments, texts, 1000, as_it_is, 8)
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(batches, again, strict=True))
    assert held_out_batches([], [], 1000, as_it_is, 8) == []


def test_accumulated_batches_weigh_one_together_and_prior_images_what_was_asked():
    found = data(pairs=4)
    batches = found.step(Recipe.of({"batch_size": 2, "gradient_accumulation": 4}), 3)
    assert [batch.weight for batch in batches] == [0.25] * 4
    numbers = [found.batch(Recipe.of({"batch_size": 2}), number) for number in range(12, 16)]
    assert all(torch.equal(one.noise, other.noise) for one, other in zip(batches, numbers, strict=True))
    prior = replace(found, prior=[torch.full((2, 4, 4), 7.0)], prior_text=told(9.0))
    batches = prior.step(Recipe.of({"batch_size": 2, "gradient_accumulation": 2, "prior_weight": 3.0}), 0)
    assert [batch.weight for batch in batches] == [0.5, 0.5, 1.5, 1.5]
    assert all(bool((batch.latents == 7).all() and (batch.texts["prompt_embeds"] == 9).all()) for batch in batches[2:])


def test_images_of_different_shapes_take_turns_by_their_number_and_never_meet_in_a_batch():
    views = [[torch.zeros(4, 4, 4)]] * 6 + [[torch.zeros(4, 6, 2)]] * 2
    texts = [[told(float(pair) + 1)] for pair in range(8)]
    found = TrainingData(views, texts, told(0.0), [], normalised=as_it_is, objective=Diffusion(DDPMScheduler()))
    recipe = Recipe.of({"batch_size": 2, "caption_dropout": 0.0})
    batches = [found.batch(recipe, number) for number in range(8)]
    seen = [int(text[0, 0]) for batch in batches for text in batch.texts["prompt_embeds"]]
    assert [batch.latents.shape[2] for batch in batches].count(6) == 2
    assert {pair: seen.count(pair) for pair in range(1, 9)} == dict.fromkeys(range(1, 9), 2)


def test_noise_offset_shifts_whole_channels():
    found = data(pairs=4)
    plain, shifted = (
        found.batch(Recipe.of({"batch_size": 4, "noise_offset": offset}), 0).noise for offset in (0.0, 0.5)
    )
    shift = shifted - plain
    assert float(shift.std(dim=(2, 3)).max()) < 1e-6
    assert 0.1 < float(shift.abs().mean()) < 1.5


def test_each_process_of_a_group_takes_its_own_rows():
    batch = data(pairs=4).batch(Recipe.of({"batch_size": 4}), 0)
    first, second = batch.rows(0, 2), batch.rows(1, 2)
    assert torch.equal(torch.stack([first.noise, second.noise], 1).flatten(0, 1), batch.noise)
