"""What a search teaches: phrases that help, and what further images are worth."""

import numpy as np
import pytest

from fashion_pipeline.core.prompts.lessons import phrase_effects, progress

PHRASES = {"plain": (), "a": ("kurta",), "b": ("kurta", "green"), "c": ("green",)}


def scores(worth: dict[str, float], photos: int = 20) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 1, photos)
    return {
        candidate: {f"p{i}": difficulty[i] + sum(worth[phrase] for phrase in phrases) for i in range(photos)}
        for candidate, phrases in PHRASES.items()
    }


def test_phrases_are_ranked_by_what_they_are_worth_on_the_same_photos() -> None:
    kurta, green = phrase_effects(scores({"kurta": 0.5, "green": -0.2}), PHRASES)
    assert (kurta.phrase, green.phrase) == ("kurta", "green")
    assert kurta.gain.mean == pytest.approx(0.5) and kurta.gain.above(0) and kurta.candidates == 2
    assert green.gain.mean == pytest.approx(-0.2) and green.gain.below(0) and green.gain.n == 20


def test_a_phrase_that_every_candidate_has_has_no_effect_that_could_be_told() -> None:
    found = scores({"kurta": 0.5, "green": 0.1})
    assert [effect.phrase for effect in phrase_effects({"a": found["a"], "b": found["b"]}, PHRASES)] == ["green"]
    assert phrase_effects({}, PHRASES) == []


def test_a_photo_that_only_one_side_was_drawn_for_does_not_count() -> None:
    found = scores({"kurta": 0.5, "green": 0.0})
    found["a"] |= {"only": 100.0}
    assert phrase_effects(found, PHRASES)[0].gain.mean == pytest.approx(0.5)


def test_progress_is_the_leaders_gain_on_the_photos_that_plain_was_drawn_for() -> None:
    drawn = [("plain", "p0", 0.1), ("a", "p0", 0.3), ("b", "p0", 0.2)]
    drawn += [("plain", "p1", 0.5), ("a", "p1", 0.4), ("b", "p1", 0.9), ("b", "p2", 9.0)]
    first, second, last = progress(drawn, "plain", every=3)
    assert (first.images, first.candidate, first.gain) == (3, "a", pytest.approx(0.2))
    assert (second.images, second.candidate, second.gain) == (6, "b", pytest.approx(0.25))
    assert (last.images, last.gain) == (7, pytest.approx(0.25))


def test_the_plain_prompt_leads_where_nothing_is_better() -> None:
    (step,) = progress([("a", "p0", 0.1), ("plain", "p0", 0.2)], "plain")
    assert (step.candidate, step.gain) == ("plain", 0.0)
    assert progress([("a", "p0", 0.1)], "plain") == []
