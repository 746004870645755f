"""The prompts that strategies write, and what they leave out when the text encoder reads no further."""

import pytest

from fashion_pipeline.core.features.attributes import Attribute
from fashion_pipeline.core.prompts.strategies import (
    CONFIDENT,
    FORMATS,
    STRATEGIES,
    Candidate,
    StyleView,
    wording,
    write,
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
    assert len(write_all(StyleView("coat", ALL, anything))) == 3


def test_a_strategy_may_look_at_other_styles_and_at_earlier_winners(monkeypatch: pytest.MonkeyPatch) -> None:
    def unlike(style: StyleView) -> list[Candidate]:
        without = ", ".join(a.phrase for attributes in style.others.values() for a in attributes)
        return [Candidate("unlike", p.prompt, without, parent=p.id) for p in style.parents]

    monkeypatch.setitem(STRATEGIES, "unlike", unlike)
    earlier = Candidate("plain", "a coat")
    (found,) = [c for c in write_all(StyleView("coat", [], anything, {"bag": [GREEN]}, [earlier])) if c.parent]
    assert (found.prompt, found.negative_prompt, found.parent) == ("a coat", "green", earlier.id)


def test_a_candidate_is_known_by_its_texts_alone() -> None:
    assert Candidate("plain", "a coat").id == Candidate("all_attributes", "a coat", phrases=("x",)).id
    assert Candidate("plain", "a coat").id != Candidate("plain", "a coat", "blurry").id
    assert Candidate("plain", "ab", "c").id != Candidate("plain", "a", "bc").id
