"""Words by what they draw: which are looked at, what a look may cost, and what grows from the closest."""

from collections.abc import Sequence

import pytest

from fashion_pipeline.core.features.attributes import Attribute, Vocabulary
from fashion_pipeline.core.prompts.formats import Candidate, compose, wording
from fashion_pipeline.core.prompts.growing import (
    GROWN,
    GROWN_SURVIVORS,
    RUNGS,
    SURVIVORS,
    WORD,
    Seen,
    affordable_field,
    alone,
    grow,
    race,
    race_cost,
    ranked,
    words_of,
)

VOCABULARY = Vocabulary(
    {
        "garment": {"Dresses": ("dress", "gown"), "Kurtas": ("kurta",), "Tops": ("top",)},
        "colour": {"White": ("white",), "Red": ("red",)},
        "audience": {"Women": ("women",), "Men": ("men",)},
    },
    {},
    {"light": ("soft light",)},
)
WORTH = {"gown": 0.4, "kurta": 0.1, "dress": 0.2, "top": 0.15, "red": 0.1, "women": 0.05, "soft light": 0.02}
"""What a word adds to a prompt's score; those that are not named take 0.03 away."""


def anything(text: str) -> bool:
    return True


class Draws:
    """What a base draws: each word has its worth, and so has luck, which further images wear off."""

    def __init__(self, luck: float = 0.0) -> None:
        self.luck, self.drawn = luck, 0
        self.asked: list[tuple[str, int]] = []
        self._images: dict[str, int] = {}

    def __call__(self, candidates: Sequence[Candidate], images: int) -> list[float]:
        self.asked += [(each.prompt, images) for each in candidates]
        for each in candidates:
            self.drawn += images - self._images.get(each.id, 0)
            self._images[each.id] = images
        return [
            sum(WORTH.get(phrase, -0.03) for phrase in each.phrases) + self.luck * (hash_of(each) - 0.5) / images
            for each in candidates
        ]


def hash_of(candidate: Candidate) -> float:
    return int(candidate.id, 16) / 16**16


def seen(look: Draws) -> list[Seen]:
    words = words_of(VOCABULARY, "ethnic")
    return race([each for word in words if (each := alone(word, anything))], look, SURVIVORS)


def test_without_the_styles_name_the_garment_stands_in_its_place() -> None:
    gown, red = Attribute("garment", "Dresses", "gown", 1.0), Attribute("colour", "Red", "red", 1.0)
    women = Attribute("audience", "Women", "women", 1.0)
    assert wording("", [gown, red, women]) == "a photo of a red gown, for women"
    assert wording("", [red]) == "a photo of red clothing" and wording("", [women]) == "a photo of clothing, for women"
    assert wording("coat", [gown]) == "a photo of a coat, gown"


def test_every_phrase_is_a_word_and_a_style_that_is_a_garment_keeps_to_it() -> None:
    phrases = [word.phrase for word in words_of(VOCABULARY, "ethnic")]
    assert phrases == ["dress", "gown", "kurta", "top", "white", "red", "women", "men", "soft light"]
    of_dresses = [word.phrase for word in words_of(VOCABULARY, "summer dress")]
    assert of_dresses == ["dress", "gown", "white", "red", "women", "men", "soft light"]


def test_a_word_that_does_not_fit_is_left_out() -> None:
    long = Attribute("garment", "Gowns", "gown of many words", 1.0)
    assert alone(long, lambda text: len(text.split()) <= 5) is None
    candidate = alone(Attribute("garment", "Dresses", "gown", 1.0), anything)
    assert candidate is not None and (candidate.strategy, candidate.prompt) == (WORD, "a photo of a gown")


@pytest.mark.parametrize("prompts", [1, 2, 5, 24, 100])
def test_a_race_costs_what_was_said_and_looks_longest_at_the_best(prompts: int) -> None:
    field = [Candidate(WORD, f"prompt {k}", phrases=("gown",) * (k % 3)) for k in range(prompts)]
    look = Draws()
    found = race(field, look, GROWN_SURVIVORS)
    assert look.drawn == race_cost(prompts, GROWN_SURVIVORS) == sum(each.images for each in found)
    last = [each for each in found if each.images == RUNGS[-1]]
    assert len(found) == prompts and len(last) >= min(prompts, GROWN_SURVIVORS)
    assert max(each.score for each in found) == last[0].score
    assert affordable_field(look.drawn, GROWN_SURVIVORS, most=200) >= prompts


def test_luck_with_two_seeds_is_worn_off_by_further_ones() -> None:
    """With two images luck is worth more than any word; the words that reach the last rung are judged by sixteen."""
    found = seen(Draws(luck=0.6))
    assert found[0].candidate.prompt == "a photo of a gown" and found[0].images == RUNGS[-1]


def test_a_prompt_that_two_lucky_seeds_liked_stands_below_one_that_sixteen_did() -> None:
    lucky, proven = Seen(Candidate(WORD, "a"), RUNGS[0], 0.9), Seen(Candidate(WORD, "b"), RUNGS[-1], 0.6)
    assert ranked([lucky, proven]) == [proven, lucky]


def test_what_grows_is_closer_than_any_word_and_within_the_budget() -> None:
    words = words_of(VOCABULARY, "ethnic")
    look = Draws()
    before = seen(look)
    spent = look.drawn
    found = grow(before, sorted(words, key=lambda w: -WORTH.get(w.phrase, -0.03)), "ethnic", anything, look, 200)
    assert look.drawn - spent <= 200
    best = found[0]
    assert best.candidate.strategy == GROWN and best.score > before[0].score
    assert {"gown", "red", "women"} <= set(best.candidate.phrases)
    names = {each.candidate.id for each in found}
    assert all(each.candidate.parent in names for each in found if each.candidate.strategy == GROWN)
    assert {each.candidate.id for each in before} <= names


def test_too_small_a_budget_grows_nothing() -> None:
    look = Draws()
    before = seen(look)
    assert grow(before, words_of(VOCABULARY, "ethnic"), "ethnic", anything, look, 40) == before


def test_prompts_are_tried_with_and_without_the_styles_name() -> None:
    words = words_of(VOCABULARY, "ethnic")
    start = [Seen(compose("top_k", "ethnic", [words[1]], anything), RUNGS[-1], 0.5)]
    found = grow(start, words, "ethnic", anything, Draws(), 400)
    heads = {each.candidate.prompt.split(",")[0] for each in found if each.candidate.strategy == GROWN}
    assert "a photo of an ethnic" in heads and "a photo of a gown" in heads


def test_prompts_with_a_negative_one_and_those_of_a_person_have_no_children() -> None:
    words = words_of(VOCABULARY, "ethnic")
    varied = Candidate("plain", "a photo of an ethnic", "shoes")
    own = Candidate("handwritten", "a drawing of a teapot")
    start = [Seen(each, RUNGS[-1], 1.0) for each in (varied, own)]
    assert grow(start, words, "ethnic", anything, Draws(), 400) == start
