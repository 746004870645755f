"""The knobs of a training stand once: in the profile, the launchpad and the trainer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.core.training.recipe import Recipe, descriptions
from fashion_pipeline.defs.assets.training import TrainingConfig
from fashion_pipeline.ml.training import identity
from fashion_pipeline.ml.training.identity import key_of, require_same
from fashion_pipeline.ml.training.results import TrainingError
from fashion_pipeline.settings import read_profile
from fashion_pipeline.stages.standing.retraining import _is_as_evaluated, _state_of_before, settings_state
from fashion_pipeline.store.store import Store


def test_intervals_and_warm_up_follow_from_the_steps_unless_they_are_given() -> None:
    recipe = Recipe(steps=1200)
    assert (recipe.warmup_steps, recipe.checkpoint_every, recipe.log_every, recipe.held_out_every) == (50, 200, 20, 120)
    assert Recipe(steps=1200, warmup_steps=7).warmup_steps == 7
    short = Recipe(steps=5)
    assert (short.warmup_steps, short.checkpoint_every, short.log_every, short.held_out_every) == (0, 1, 1, 1)


def test_turning_a_knob_keeps_the_others_and_what_follows_from_the_steps_follows() -> None:
    profile = Recipe.of({"rank": 8, "steps": 400})
    assert profile.changed({"steps": 60}).rank == 8
    assert profile.changed({"steps": 60}) == Recipe.of({"rank": 8, "steps": 60})
    assert profile.changed({"learning_rate": 1e-3, "alpha": None}) == Recipe.of(
        {"rank": 8, "steps": 400, "learning_rate": 1e-3}
    )


def test_how_often_something_is_written_down_does_not_make_another_training() -> None:
    assert Recipe(log_every=1).identity() == Recipe(log_every=9, checkpoint_every=3).identity()
    assert Recipe(seed=1).identity() != Recipe().identity()


def test_an_unknown_knob_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"dropout is not known: choose among method, rank, .*caption_dropout"):
        Recipe.of({"dropout": 0.1})


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"strengths": [0.5, 0.0]}, "strengths has 0: choose strengths above 0, up to 2"),
        ({"strengths": [0.5], "method": "full"}, "leave them out"),
        ({"strengths": [0.5], "dora": True}, "leave them out"),
        ({"method": "loha", "dora": True}, "dora and rslora are for lora"),
        ({"method": "lokr", "quantize": "nf4"}, "for a LoRA without dora"),
        ({"method": "full", "text_learning_rate": 1e-4}, "text_learning_rate is for additions"),
    ],
)
def test_knobs_that_do_not_go_together_are_named(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Recipe.of(values)


def test_the_launchpad_has_every_knob_with_its_range_and_none_is_filled_in() -> None:
    fields = TrainingConfig.model_fields
    assert set(fields) == {*Recipe.model_fields, "control"}
    assert all(fields[name].default is None for name in Recipe.model_fields)
    assert "From 1 to 1024" in fields["rank"].description and "From 1 to 1024" in descriptions()["rank"]
    turned = TrainingConfig(rank=4, layers=["feed_forward"], precision="fp32", horizontal_flip=False)
    assert Recipe().changed(
        {name: value for name, value in turned.model_dump().items() if name != "control"}
    ) == Recipe.of({"rank": 4, "layers": ("feed_forward",), "precision": "fp32", "horizontal_flip": False})


RANGES = {
    "rank": (1, 1024),
    "alpha": (1e-3, 4096),
    "steps": (1, 10_000_000),
    "batch_size": (1, 4096),
    "learning_rate": (1e-8, 1),
    "warmup_steps": (0, 400),
    "weight_decay": (0, 1),
    "min_snr_gamma": (0, 1000),
    "gradient_clip": (1e-6, 1e6),
    "caption_dropout": (0, 1),
    "resolution": (0, 8192),
    "seed": (0, 2**63 - 1),
    "checkpoint_every": (1, 10_000_000),
    "log_every": (1, 10_000_000),
    "held_out_every": (0, 10_000_000),
}


@pytest.mark.parametrize("knob", RANGES)
def test_both_ends_of_a_range_are_allowed_and_nothing_beyond(knob: str) -> None:
    low, high = RANGES[knob]
    for value in (low, high):
        assert getattr(Recipe.of({knob: value}), knob) == value
    whole = isinstance(low, int) and Recipe.model_fields[knob].annotation is int
    for beyond in (low - 1, high + 1) if whole else (low * 0.9 - 1e-9, high * 1.1):
        with pytest.raises(ValueError, match=f"^{knob} is "):
            Recipe.of({knob: beyond})


def test_what_is_not_given_is_what_the_papers_and_the_optimiser_say() -> None:
    recipe = Recipe()
    assert (recipe.weight_decay, recipe.min_snr_gamma, recipe.gradient_clip, recipe.caption_dropout) == (
        0.01,
        5,
        1,
        0.1,
    )
    assert (recipe.rank, recipe.alpha, recipe.steps, recipe.batch_size, recipe.learning_rate) == (16, 16, 400, 8, 1e-4)
    assert recipe.horizontal_flip and recipe.resolution == recipe.seed == 0
    assert (recipe.method, recipe.precision) == ("lora", "auto")


def test_what_is_told_of_a_recipe_is_its_main_knobs_and_those_that_were_turned():
    usual = Recipe.of({"steps": 100}).told()
    assert usual["method"] == "lora" and usual["steps"] == 100 and "noise_offset" not in usual
    turned = Recipe.of({"steps": 100, "noise_offset": 0.05}).told()
    assert turned == usual | {"noise_offset": 0.05}


def test_a_zero_that_was_given_stays_where_the_number_of_steps_is_changed() -> None:
    given = Recipe.of({"sample_every": 0, "warmup_steps": 0})
    assert (given.sample_every, given.warmup_steps, given.log_every) == (0, 0, 6)
    changed = given.changed({"steps": 600})
    assert (changed.steps, changed.sample_every, changed.warmup_steps) == (600, 0, 0)
    assert (changed.log_every, changed.checkpoint_every) == (10, 100), "what was not given follows the steps"
    assert given.changed({"steps": 600, "sample_every": 7}).changed({"steps": 30}).sample_every == 7
    assert Recipe().changed({"steps": 30}) == Recipe.of({"steps": 30})


def test_prodigy_finds_its_rate_from_one_whatever_another_optimizer_was_given() -> None:
    assert Recipe.of({"optimizer": "prodigy"}).learning_rate == 1.0
    profile = Recipe.of({"learning_rate": 1e-3, "text_learning_rate": 5e-4})
    turned = profile.changed({"optimizer": "prodigy"})
    assert (turned.learning_rate, turned.text_learning_rate) == (1.0, 0.0)
    assert profile.changed({"optimizer": "prodigy", "learning_rate": 0.5}).learning_rate == 0.5
    assert turned.changed({"optimizer": "adamw"}).learning_rate == 1e-4
    assert turned.changed({"steps": 10}).learning_rate == 1.0
    with pytest.raises(ValueError, match=r"text_learning_rate is 0.5, but prodigy finds one rate .* \(1\), or to 0"):
        Recipe.of({"optimizer": "prodigy", "text_learning_rate": 0.5})


class Grown(Recipe):
    """What a later release may be: one more knob."""

    brand_new: int = 3


def test_a_knob_that_a_later_release_adds_trains_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"steps": 30, "rank": 4, "learning_rate": 1e-3}
    rest = {"base": "b", "pairs": "p", "torch": "2"}
    before = key_of({**Recipe.of(values).identity(), **rest})
    assert Grown.of(values).differing() == Recipe.of(values).differing()
    monkeypatch.setattr(identity, "Recipe", Grown)
    now = {**Grown.of(values).identity(), **rest}
    assert key_of(now) == before != key_of({**now, "brand_new": 4})
    require_same(Path("output"), {**Recipe.of(values).identity(), **rest}, now)  # a checkpoint of before goes on
    with pytest.raises(TrainingError, match="brand_new was 3, is 4"):
        require_same(Path("output"), {**Recipe.of(values).identity(), **rest}, {**now, "brand_new": 4})


def test_a_knob_that_a_later_release_adds_is_no_other_setting(tmp_path: Path) -> None:
    store, profile = Store(tmp_path), read_profile("embedded")
    store.sources.register("coat", "coat", SourceSpec("/photos"))
    state = settings_state(store, profile, "coat")
    grown = replace(profile, training=Grown.of({"steps": 400, "learning_rate": 1e-3}))
    known = replace(profile, training=Recipe.of({"steps": 400, "learning_rate": 1e-3}))
    assert settings_state(store, grown, "coat") == settings_state(store, known, "coat")
    assert settings_state(store, replace(profile, presets={"x": {}}), "coat") == state
    for other in (
        replace(profile, generator="elsewhere"),
        replace(profile, whole_photos=not profile.whole_photos),
        replace(profile, training=profile.training.changed({"rank": 3})),
        replace(profile, generation=profile.generation.model_copy(update={"steps": 3})),
    ):
        assert settings_state(store, other, "coat") != state
    store.sources.choose("coat", lambda known: {"lora_weights": {"rank": 3}})
    assert settings_state(store, profile, "coat") != state
    store.sources.mark("coat", "evaluation", _state_of_before(store, profile, "coat"))
    assert _is_as_evaluated(store, profile, "coat"), "written by 0.1.0"
