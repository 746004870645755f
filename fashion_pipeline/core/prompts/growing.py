"""Prompts found by what they draw: every word of the vocabulary alone, and combinations grown from the best.

What describes a photo and what a generator draws from the same word are two things. So prompts are looked at: drawn
with few steps and the same seeds for all, and scored by how close the images come to the style's photos as a set.
Everything here works on values; who draws is in `stages/prompts/looks.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from fashion_pipeline.core.features.attributes import GARMENT, Attribute, Vocabulary, garments_named, one_a_facet
from fashion_pipeline.core.prompts.formats import Candidate, compose, wording
from fashion_pipeline.core.prompts.search import sample_order

RUNGS = (2, 4, 8, 16)
"""Images that a prompt is looked at with, all of them with the seeds of the rung before and as many more.

More seeds help more than more steps: 5 steps with 8 seeds rank about as well as 15 with 4, for two thirds of the steps,
and two seeds rank the closest prompts less well than sixteen (docs/results.md).
"""

KEEP_ONE_OF = 3
"""At each rung one prompt of so many goes on."""

SURVIVORS = 8
"""Words that reach the last rung."""

GROWN_SURVIVORS = 3
"""Prompts of a generation that reach the last rung."""

GENERATION = 24
"""Most prompts of a generation."""

SMALLEST_GENERATION = 4
"""A generation of fewer is not worth its images."""

PARENTS = 6
"""Prompts that a generation descends from."""

TRIED_WORDS = 6
"""Words of each facet that prompts are varied with, the closest alone."""

MOST_WORDS = 512
"""Words of a vocabulary that are drawn, those closest to the photos by text first."""

WORD, GROWN = "word", "grown"
"""Strategies: one word alone, and what was grown by drawing."""

Look = Callable[[Sequence[Candidate], int], Sequence[float]]
"""(prompts, images of each) → the mean cosine of each prompt's images to the style's search photos."""


@dataclass(frozen=True)
class Seen:
    """What looking at a prompt came to."""

    candidate: Candidate
    images: int
    """Images that the score rests on: one of RUNGS."""
    score: float
    """Their mean cosine to the style's search photos, each to all of them."""


def words_of(vocabulary: Vocabulary, subject: str) -> list[Attribute]:
    """Every phrase of the vocabulary, without the garments that the style's name rules out: a coat is no backpack."""
    named = garments_named(subject, vocabulary)
    asked = [
        Attribute(facet, value, phrase, 1.0)
        for facet, values in vocabulary.facets.items()
        for value, phrases in values.items()
        for phrase in phrases
        if facet != GARMENT or not named or value in named
    ]
    return asked + [
        Attribute(facet, phrase, phrase, 1.0) for facet, phrases in vocabulary.drawn.items() for phrase in phrases
    ]


def alone(word: Attribute, fits: Callable[[str], bool]) -> Candidate | None:
    """The prompt of a word alone, without the style's name; None where it does not fit."""
    candidate = compose(WORD, "", [word], fits)
    return candidate if candidate.phrases else None


def race(field: Sequence[Candidate], look: Look, survivors: int) -> list[Seen]:
    """Look at all prompts with few images, and at those that come closest with more; the best of the last rung first.

    Successive halving (Jamieson & Talwalkar 2016) over common seeds, keeping one of KEEP_ONE_OF.
    """
    seen: dict[str, Seen] = {}
    alive = list({candidate.id: candidate for candidate in field}.values())
    for images in RUNGS:
        scores = look(alive, images)
        seen |= {each.id: Seen(each, images, score) for each, score in zip(alive, scores, strict=True)}
        alive.sort(key=lambda each: (-seen[each.id].score, each.id))
        alive = alive[: _kept(len(alive), survivors)]
    return ranked(seen.values())


def race_cost(prompts: int, survivors: int) -> int:
    """Images that a race of so many prompts takes."""
    cost, before = 0, 0
    for images in RUNGS:
        cost += prompts * (images - before)
        prompts, before = _kept(prompts, survivors), images
    return cost


def _kept(prompts: int, survivors: int) -> int:
    return min(prompts, max(survivors, ceil(prompts / KEEP_ONE_OF)))


def ranked(seen: Iterable[Seen]) -> list[Seen]:
    """Those that were looked at longest first, the closest of them first."""
    return sorted(seen, key=lambda each: (-each.images, -each.score, each.candidate.id))


def grow(
    seen: Sequence[Seen],
    words: Sequence[Attribute],
    subject: str,
    fits: Callable[[str], bool],
    look: Look,
    budget: int,
) -> list[Seen]:
    """Generations of prompts that descend from the best seen so far, until the budget of images is spent; best first.

    `words` are those to vary prompts with, closest first. What is returned includes `seen`.
    """
    known = {each.candidate.id: each for each in seen}
    generation = 0
    while (size := affordable_field(budget, GROWN_SURVIVORS)) >= SMALLEST_GENERATION:
        parents = [each.candidate for each in ranked(known.values()) if not each.candidate.is_varied][:PARENTS]
        young = {child.id: child for child in _children(parents, words, subject, fits) if child.id not in known}
        chosen = sample_order(list(young), f"generation {generation}")[:size]
        if not chosen:
            break
        raced = race([young[each] for each in chosen], look, GROWN_SURVIVORS)
        known |= {each.candidate.id: each for each in raced}
        budget -= race_cost(len(chosen), GROWN_SURVIVORS)
        generation += 1
    return ranked(known.values())


def affordable_field(budget: int, survivors: int, most: int = GENERATION) -> int:
    """The most prompts, up to `most`, that so many images can race."""
    return max((n for n in range(1, most + 1) if race_cost(n, survivors) <= budget), default=0)


def _children(
    parents: Sequence[Candidate], words: Sequence[Attribute], subject: str, fits: Callable[[str], bool]
) -> Iterator[Candidate]:
    """Each parent with another word or one more, with one less, with or without the style's name, and crossed."""
    by_phrase = _by_phrase(words)
    tried = [word for facet in dict.fromkeys(word.facet for word in words) for word in _closest(words, facet)]
    genes = [
        (parent, [by_phrase[phrase] for phrase in parent.phrases], _names_style(parent, subject))
        for parent in parents
        if all(phrase in by_phrase for phrase in parent.phrases)
        and (parent.phrases or _names_style(parent, subject))  # a person's own words are no genes
    ]
    for place, (parent, own, named) in enumerate(genes):
        changed = [(named, one_a_facet([word, *own])) for word in tried if word not in own]
        changed += [(named, [other for other in own if other is not word]) for word in own]
        changed += [(not named, own)]
        changed += [(other_named, one_a_facet([*own, *others])) for _, others, other_named in genes[place + 1 :]]
        for names_style, values in changed:
            if values or names_style:
                yield compose(GROWN, subject if names_style else "", values, fits, parent=parent.id)


def _closest(words: Sequence[Attribute], facet: str) -> list[Attribute]:
    return [word for word in words if word.facet == facet][:TRIED_WORDS]


def _by_phrase(words: Iterable[Attribute]) -> Mapping[str, Attribute]:
    """Phrase → its word; of one that stands in two facets the first."""
    found: dict[str, Attribute] = {}
    for word in words:
        found.setdefault(word.phrase, word)
    return found


def _names_style(candidate: Candidate, subject: str) -> bool:
    """Whether a prompt starts with the style's name."""
    return candidate.prompt.split(",")[0] == wording(subject, [])
