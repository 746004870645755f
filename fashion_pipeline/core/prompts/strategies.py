"""Strategies: named rules that write prompts for a style. Add a function to `STRATEGIES` to add one.

Each format is a strategy. The others see the whole style: all values that the encoder found in it and how frequent they
are, the same of its neighbours, what came with the photos, groups of similar photos, earlier rounds, and how close a
text is to the photos.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log

from fashion_pipeline.core.features.attributes import Attribute, one_a_facet
from fashion_pipeline.core.prompts.formats import FORMATS, Candidate, compose, write

FREQUENT = 0.1
"""Share of photos from which a value counts as one of the style's, for strategies that choose among values."""

MOST_PHRASES = 6
"""Phrases that `greedy` names at most."""

MOST_WINNERS = 2
"""Winners of the round before that compete in any case."""

MOST_PARENTS = 3
"""Winners of earlier rounds that `evolved` starts from."""

NEGATIVES = 3
"""Phrases of a derived negative prompt."""

GUIDANCE_FACTORS = (2 / 3, 5 / 3, 5 / 2)
"""Guidance scales that the winner is tried with, as multiples of the profile's."""


@dataclass(frozen=True)
class StyleView:
    """What a strategy may look at; all of it comes from search photos and from other styles."""

    subject: str
    """What prompts call the style, such as "ethnic wear"."""
    attributes: Sequence[Attribute]
    """What is typical of the style's search photos: one attribute a facet, likeliest first."""
    fits: Callable[[str], bool]
    """Whether the generator's text encoder reads a prompt whole."""
    values: Sequence[Attribute] = ()
    """Every value found in the style, with its mean probability over the photos, likeliest first."""
    others: Mapping[str, Sequence[Attribute]] = field(default_factory=dict)
    """The values of every other style that was described."""
    given: Sequence[Attribute] = ()
    """What came with the photos: the most frequent value of each facet, with its share of the photos."""
    clusters: Sequence[Sequence[Attribute]] = ()
    """What is typical of each group of similar photos: one attribute a facet."""
    handwritten: Sequence[str] = ()
    """Prompts that a person added."""
    parents: Sequence[Candidate] = ()
    """Candidates of the style's earlier rounds, best first."""
    closeness: Callable[[Sequence[str]], Sequence[float]] | None = None
    """Texts → mean cosine of each to the search photos, by the encoder."""


Strategy = Callable[[StyleView], Iterable[Candidate]]
"""Writes candidates for a style; may set their negative prompt and their parent."""


def _by_format(name: str) -> Strategy:
    return lambda style: [write(name, style.subject, style.attributes, style.fits)]


def distinctive(style: StyleView) -> Iterator[Candidate]:
    """What sets the style apart: the values of the highest log-odds against the other styles, one a facet, 2 and 4."""
    ranked = one_a_facet(value for value, odds in log_odds(style) if odds > 0 and value.probability >= FREQUENT)
    for count in (2, 4):
        if ranked:
            yield _composed("distinctive", style, ranked[:count])


def catalog_words(style: StyleView) -> Iterator[Candidate]:
    """What came with the photos, where a value was given for at least FREQUENT of them."""
    chosen = [value for value in style.given if value.probability >= FREQUENT]
    if chosen:
        yield _composed("catalog_words", style, chosen)


def greedy(style: StyleView) -> Iterator[Candidate]:
    """Adds, one at a time, the phrase that most raises the similarity of text and photos, while one does.

    Every step is a candidate: text similarity is only a hint, and the images that the search draws decide.
    """
    if style.closeness is None:
        return
    chosen: list[Attribute] = []
    best = style.closeness([_composed("greedy", style, []).prompt])[0]
    while len(chosen) < MOST_PHRASES:
        used = {value.facet for value in chosen}
        tried = [[*chosen, value] for value in _frequent(style) if value.facet not in used]
        written = [_composed("greedy", style, values) for values in tried]
        scores = list(style.closeness([candidate.prompt for candidate in written]))
        if not scores or max(scores) <= best:
            return
        winner = scores.index(max(scores))
        chosen, best = tried[winner], scores[winner]
        yield written[winner]


def per_cluster(style: StyleView) -> Iterator[Candidate]:
    """For styles that are several things: the attributes of each group of similar photos."""
    for attributes in style.clusters:
        yield _composed("per_cluster", style, attributes)


def winners(style: StyleView) -> Iterator[Candidate]:
    """The best of the round before as they were, which no other rule may write again."""
    yield from style.parents[:MOST_WINNERS]


def evolved(style: StyleView) -> Iterator[Candidate]:
    """Children of the best candidates of earlier rounds: two joined, one without a phrase, one with another phrase."""
    by_phrase = {value.phrase: value for value in [*style.values, *style.given]}
    parents = [
        (parent, [by_phrase[phrase] for phrase in parent.phrases if phrase in by_phrase])
        for parent in style.parents
        if not parent.negative_prompt
    ][:MOST_PARENTS]
    for place, (parent, genes) in enumerate(parents):
        for _, others in parents[place + 1 :]:
            yield _composed("evolved", style, one_a_facet([*genes, *others]), parent.id)
        for gene in genes:
            yield _composed("evolved", style, [value for value in genes if value is not gene], parent.id)
        for value in _frequent(style):
            if value not in genes:
                yield _composed("evolved", style, one_a_facet([value, *genes]), parent.id)


def handwritten(style: StyleView) -> Iterator[Candidate]:
    """The prompts that a person added, as they are. Raises ValueError for one that is empty or read only in part."""
    for prompt in map(str.strip, style.handwritten):
        if not prompt:
            raise ValueError("a prompt is empty: write what the picture should show, or leave --prompt out")
        if not style.fits(prompt):
            raise ValueError(f"the prompt {prompt!r} is longer than the text encoder reads: shorten it")
        yield Candidate("handwritten", prompt)


STRATEGIES: dict[str, Strategy] = {
    **{name: _by_format(name) for name in FORMATS},
    "handwritten": handwritten,
    "distinctive": distinctive,
    "catalog_words": catalog_words,
    "greedy": greedy,
    "per_cluster": per_cluster,
    "evolved": evolved,
    "winners": winners,
}


def write_all(style: StyleView) -> list[Candidate]:
    """The candidates of every strategy; a prompt that two strategies write belongs to the first."""
    candidates: dict[str, Candidate] = {}
    for strategy in STRATEGIES.values():
        for candidate in strategy(style):
            candidates.setdefault(candidate.id, candidate)
    return list(candidates.values())


def negative_prompt(style: StyleView) -> str:
    """What the style is not: values that are frequent among its neighbours and rare in it; empty without neighbours.

    The most telling first, NEGATIVES at most.
    """
    elsewhere, probabilities = _elsewhere(style), {value.key: value.probability for value in style.values}
    ranked = [
        value
        for value, odds in reversed(log_odds(style))
        if odds < 0 and elsewhere.get(value.key, 0.0) >= FREQUENT > probabilities.get(value.key, 0.0)
    ]
    return ", ".join(value.phrase for value in ranked[:NEGATIVES])


def with_negative(candidate: Candidate, negative: str) -> Candidate:
    """The same prompt with a negative one, which it is the parent of."""
    return replace(candidate, negative_prompt=negative, parent=candidate.id)


def with_guidance(candidate: Candidate, usual: float) -> list[Candidate]:
    """The same words at other guidance scales, and at the usual one if they have another; each with it as parent."""
    scales = [None, *(round(factor * usual, 2) for factor in GUIDANCE_FACTORS)]
    return [replace(candidate, guidance=scale, parent=candidate.id) for scale in scales if scale != candidate.guidance]


def log_odds(style: StyleView) -> list[tuple[Attribute, float]]:
    """Each value of the style or its neighbours with its log-odds against the mean of the neighbours, highest first.

    Probabilities are kept 0.005 away from 0 and 1, so that a value found nowhere else is not infinitely telling. Empty
    without neighbours.
    """
    if not style.others:
        return []
    elsewhere, probabilities = _elsewhere(style), {value.key: value.probability for value in style.values}
    every = {value.key: value for values in (*style.others.values(), style.values) for value in values}
    odds = [
        (
            replace(value, probability=probabilities.get(key, 0.0)),
            _logit(probabilities.get(key, 0.0)) - _logit(elsewhere.get(key, 0.0)),
        )
        for key, value in every.items()
    ]
    return sorted(odds, key=lambda each: (-each[1], each[0].phrase))


def _elsewhere(style: StyleView) -> dict[tuple[str, str], float]:
    """Facet and value → its mean share over the other styles."""
    shares: dict[tuple[str, str], float] = {}
    for values in style.others.values():
        for value in values:
            shares[value.key] = shares.get(value.key, 0.0) + value.probability / len(style.others)
    return shares


def _logit(probability: float) -> float:
    kept = min(max(probability, 0.005), 0.995)
    return log(kept / (1 - kept))


def _composed(strategy: str, style: StyleView, values: Sequence[Attribute], parent: str | None = None) -> Candidate:
    return compose(strategy, style.subject, values, style.fits, parent=parent)


def _frequent(style: StyleView) -> list[Attribute]:
    return [value for value in style.values if value.probability >= FREQUENT]
