"""The prompts that strategies write, and what they leave out when the text encoder reads no further."""

import pytest

from fashion_pipeline.core.features.attributes import Attribute
from fashion_pipeline.core.prompts.formats import CONFIDENT, FEW, FORMATS, Candidate, wording, write
from fashion_pipeline.core.prompts.strategies import (
    FREQUENT,
    STRATEGIES,
    StyleView,
    log_odds,
    negative_prompt,
    with_negative,
    write_all,
)

KURTA = Attribute("garment", "Kurtas", "kurta", 0.9)
GREEN = Attribute("colour", "Green", "green", 0.4)
WOMEN = Attribute("audience", "Women", "women", 0.7)
SUMMER = Attribute("season", "Summer", "summer", 0.3)
ALL = [KURTA, WOMEN, GREEN, SUMMER]


def anything(text: str) -> bool:
    return True


def words(most: int):
    return lambda text: len(text.split()) <= most


def test_a_prompt_reads_like_a_sentence() -> None:
    assert wording("ethnic wear", ALL) == "a photo of ethnic wear, green kurta, for women, summer"
    assert wording("umbrella", []) == "a photo of an umbrella"
    assert wording("coat", [GREEN]) == "a photo of a coat, green"


def test_the_plain_prompt_names_nothing_but_the_style() -> None:
    candidate = write("plain", "coat", ALL, anything)
    assert candidate.prompt == "a photo of a coat"
    assert candidate.phrases == candidate.dropped == ()


def test_only_what_is_more_likely_than_not_is_believed() -> None:
    edge = Attribute("usage", "Casual", "casual", CONFIDENT)
    assert write("high_confidence_only", "coat", [*ALL, edge], anything).phrases == ("kurta", "women", "casual")


def test_a_prompt_over_the_token_limit_loses_the_least_certain_first_and_says_which() -> None:
    whole = write("all_attributes", "coat", ALL, anything)
    assert len(whole.prompt.split()) == 10
    candidate = write("all_attributes", "coat", ALL, words(8))
    assert candidate.prompt == "a photo of a coat, kurta, for women"
    assert candidate.dropped == ("summer", "green")
    assert candidate.phrases == ("kurta", "women")


def test_every_strategy_keeps_within_the_limit() -> None:
    for strategy in FORMATS:
        for most in range(5, 12):
            candidate = write(strategy, "coat", ALL, words(most))
            assert words(most)(candidate.prompt)
            chosen = [attribute.phrase for attribute in FORMATS[strategy](ALL)]
            assert sorted(candidate.phrases + candidate.dropped) == sorted(chosen)


def test_a_style_name_that_no_text_encoder_reads_is_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match="'very long name' is longer than the text encoder reads: shorten it"):
        write("all_attributes", "very long name", ALL, words(3))


def test_two_strategies_that_write_the_same_prompt_cost_one_candidate() -> None:
    certain = [KURTA, WOMEN]
    assert [c.strategy for c in write_all(StyleView("coat", certain, anything))] == ["plain", "all_attributes"]
    assert [c.strategy for c in write_all(StyleView("coat", [], anything))] == ["plain"]
    assert [c.strategy for c in write_all(StyleView("coat", ALL, anything))] == [*FORMATS]


def test_a_strategy_may_look_at_other_styles_and_at_earlier_winners(monkeypatch: pytest.MonkeyPatch) -> None:
    def unlike(style: StyleView) -> list[Candidate]:
        without = ", ".join(a.phrase for attributes in style.others.values() for a in attributes)
        return [Candidate("unlike", p.prompt, without, parent=p.id) for p in style.parents]

    monkeypatch.setitem(STRATEGIES, "unlike", unlike)
    earlier = Candidate("plain", "a coat")
    (found,) = [
        c
        for c in write_all(StyleView("coat", [], anything, others={"bag": [GREEN]}, parents=[earlier]))
        if c.strategy == "unlike"
    ]
    assert (found.prompt, found.negative_prompt, found.parent) == ("a coat", "green", earlier.id)


def test_a_candidate_is_known_by_its_texts_alone() -> None:
    assert Candidate("plain", "a coat").id == Candidate("all_attributes", "a coat", phrases=("x",)).id
    assert Candidate("plain", "a coat").id != Candidate("plain", "a coat", "blurry").id
    assert Candidate("plain", "ab", "c").id != Candidate("plain", "a", "bc").id


def test_a_few_attributes_are_the_likeliest() -> None:
    assert write("top_k", "coat", ALL[::-1], anything).phrases == ("kurta", "women", "green")[:FEW]


BAG = Attribute("garment", "Handbags", "handbag", 0.8)
BLACK = Attribute("colour", "Black", "black", 0.5)
VIEW = StyleView(
    "ethnic wear",
    ALL,
    anything,
    values=[*ALL, Attribute("colour", "Black", "black", 0.3), Attribute("garment", "Handbags", "handbag", 0.01)],
    others={"bag": [BAG, BLACK, WOMEN], "belt": [Attribute("garment", "Belts", "belt", 0.9), BLACK]},
)


def by(strategy: str, view: StyleView) -> list[Candidate]:
    return list(STRATEGIES[strategy](view))


def test_what_sets_a_style_apart_is_what_its_neighbours_have_less_of() -> None:
    ranked = [value.phrase for value, odds in log_odds(VIEW) if odds > 0]
    assert ranked[0] == "kurta" and "black" not in ranked
    assert by("distinctive", VIEW)[0].phrases == ("kurta", "green")
    assert by("distinctive", StyleView("coat", ALL, anything, values=ALL)) == []


def test_a_negative_prompt_names_what_only_the_neighbours_show() -> None:
    assert negative_prompt(VIEW) == "belt, handbag"
    assert negative_prompt(StyleView("coat", ALL, anything, values=ALL)) == ""
    candidate = Candidate("plain", "a coat")
    twin = with_negative(candidate, "belt")
    assert (twin.prompt, twin.negative_prompt, twin.parent) == ("a coat", "belt", candidate.id)
    assert twin.id != candidate.id


def test_words_of_the_catalog_are_used_where_enough_photos_have_them() -> None:
    rare = Attribute("season", "Winter", "winter", FREQUENT / 2)
    (found,) = by("catalog_words", StyleView("coat", [], anything, given=[KURTA, rare]))
    assert found.phrases == ("kurta",)
    assert by("catalog_words", StyleView("coat", [], anything, given=[rare])) == []


def test_greedy_adds_the_phrase_that_helps_most_until_none_does() -> None:
    worth = {"kurta": 0.3, "green": 0.1, "women": -0.1, "black": 0.2, "summer": 0.0}

    def closeness(texts):
        return [sum(value for phrase, value in worth.items() if phrase in text) for text in texts]

    steps = by("greedy", StyleView("coat", ALL, anything, values=VIEW.values, closeness=closeness))
    assert [step.phrases for step in steps] == [("kurta",), ("kurta", "black")]  # one colour; nothing else helps
    assert by("greedy", StyleView("coat", ALL, anything, values=ALL)) == []


def test_each_group_of_photos_has_a_prompt() -> None:
    found = by("per_cluster", StyleView("coat", [], anything, clusters=[[KURTA], [BAG, BLACK]]))
    assert [candidate.prompt for candidate in found] == ["a photo of a coat, kurta", "a photo of a coat, black handbag"]


def test_children_of_earlier_winners_join_lose_and_gain_phrases() -> None:
    first, second = write("top_k", "coat", [KURTA, WOMEN], anything), write("top_k", "coat", [GREEN], anything)
    children = by("evolved", StyleView("coat", ALL, anything, values=VIEW.values, parents=[first, second]))
    phrases = {child.phrases for child in children if child.parent == first.id}
    assert ("kurta", "women", "green") in phrases  # joined
    assert {("women",), ("kurta",)} <= phrases  # lost
    assert ("black", "kurta", "women") in phrases  # gained
    assert all(child.parent in (first.id, second.id) for child in children)
    assert by("evolved", StyleView("coat", ALL, anything, values=VIEW.values)) == []


def test_winners_compete_again_as_they_were_also_those_that_no_rule_would_write_again() -> None:
    parents = [Candidate("evolved", "a coat, once"), Candidate("greedy", "a coat, twice", "belt"), Candidate("x", "y")]
    assert by("winners", StyleView("coat", [], anything, parents=parents)) == parents[:2]


def test_a_prompt_of_a_person_competes_as_it_is_and_is_never_cut() -> None:
    (found,) = by("handwritten", StyleView("coat", [], anything, handwritten=["my coat, 大衣"]))
    assert found.prompt == "my coat, 大衣"
    with pytest.raises(ValueError, match="the prompt 'a b c d' is longer than the text encoder reads: shorten it"):
        by("handwritten", StyleView("coat", [], words(3), handwritten=["a b c d"]))
    with pytest.raises(ValueError, match="a prompt is empty"):
        by("handwritten", StyleView("coat", [], anything, handwritten=["  "]))
