"""Strategies: named rules that write prompts for a style. Add a function to `STRATEGIES` to add one.

A *format* is the simplest kind: it picks, of the attributes of a photo or of a style, those that a prompt names. Each
format is a strategy, and captions are written by formats. Other strategies see the whole style and its neighbours.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fashion_pipeline.core.features.attributes import Attribute, with_article

CONFIDENT = 0.5
"""Probability from which `high_confidence_only` believes an attribute."""

Format = Callable[[Sequence[Attribute]], list[Attribute]]
"""Picks, from the attributes of a photo or a style, those that a prompt names."""


@dataclass(frozen=True)
class Candidate:
    """One prompt with where it came from."""

    strategy: str
    prompt: str
    negative_prompt: str = ""
    phrases: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    parent: str | None = None

    @property
    def id(self) -> str:
        """Hash of prompt and negative prompt: equal texts are one candidate, whatever wrote them."""
        return hashlib.sha256(f"{self.prompt}\0{self.negative_prompt}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StyleView:
    """What a strategy may look at."""

    subject: str
    """What prompts call the style, such as "ethnic wear"."""
    attributes: Sequence[Attribute]
    """What is typical of the style's search photos: one attribute a facet, likeliest first."""
    fits: Callable[[str], bool]
    """Whether the generator's text encoder reads a prompt whole."""
    others: Mapping[str, Sequence[Attribute]] = field(default_factory=dict)
    """The same of every other style that was described."""
    parents: Sequence[Candidate] = ()
    """Candidates of the style's newest search, best first."""


Strategy = Callable[[StyleView], Iterable[Candidate]]
"""Writes candidates for a style; may set their negative prompt and their parent."""


def plain(attributes: Sequence[Attribute]) -> list[Attribute]:
    """Nothing but the style's name."""
    return []


def all_attributes(attributes: Sequence[Attribute]) -> list[Attribute]:
    """The likeliest value of every facet."""
    return list(attributes)


def high_confidence_only(attributes: Sequence[Attribute]) -> list[Attribute]:
    """The values that are more likely than not."""
    return [attribute for attribute in attributes if attribute.probability >= CONFIDENT]


FORMATS: dict[str, Format] = {
    "plain": plain,
    "all_attributes": all_attributes,
    "high_confidence_only": high_confidence_only,
}


def _by_format(name: str) -> Strategy:
    return lambda style: [write(name, style.subject, style.attributes, style.fits)]


STRATEGIES: dict[str, Strategy] = {name: _by_format(name) for name in FORMATS}


def write(strategy: str, subject: str, attributes: Sequence[Attribute], fits: Callable[[str], bool]) -> Candidate:
    """The prompt that a format writes for a subject such as "ethnic wear".

    `fits` tells whether a text can be encoded whole; while it cannot, the least certain phrase goes, and `dropped`
    names it. Raises ValueError if not even the subject fits.
    """
    chosen = FORMATS[strategy](attributes)
    dropped: list[Attribute] = []
    while not fits(wording(subject, chosen)):
        if not chosen:
            raise ValueError(f"the style's name {subject!r} is longer than the text encoder reads: shorten it")
        dropped.append(min(chosen, key=lambda attribute: attribute.probability))
        chosen = [attribute for attribute in chosen if attribute is not dropped[-1]]
    return Candidate(
        strategy,
        wording(subject, chosen),
        phrases=tuple(attribute.phrase for attribute in chosen),
        dropped=tuple(attribute.phrase for attribute in dropped),
    )


def wording(subject: str, attributes: Sequence[Attribute]) -> str:
    """Such as: a photo of ethnic wear, green kurta, for women, summer. Colour and garment make one phrase."""
    words = {attribute.facet: attribute.phrase for attribute in attributes}
    item = " ".join(words.pop(facet) for facet in ("colour", "garment") if facet in words)
    if "audience" in words:
        words["audience"] = f"for {words['audience']}"
    return ", ".join(part for part in (f"a photo of {with_article(subject)}", item, *words.values()) if part)


def write_all(style: StyleView) -> list[Candidate]:
    """The candidates of every strategy; a prompt that two strategies write belongs to the first."""
    candidates: dict[str, Candidate] = {}
    for strategy in STRATEGIES.values():
        for candidate in strategy(style):
            candidates.setdefault(candidate.id, candidate)
    return list(candidates.values())
