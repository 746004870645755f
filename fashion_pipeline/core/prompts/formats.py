"""Formats: which attributes a prompt names, and how it is worded.

A format picks, of the attributes of a photo or of a style, those that a prompt names. So it can write the caption of a
photo as well as the prompt of a style. Add a function to `FORMATS` to add one.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fashion_pipeline.core.features.attributes import Attribute, with_article

CONFIDENT = 0.5
"""Probability from which `high_confidence_only` believes an attribute."""

FEW = 3
"""Attributes that `top_k` names."""

Format = Callable[[Sequence[Attribute]], list[Attribute]]
"""Picks, from the attributes of a photo or a style, those that a prompt names."""


@dataclass(frozen=True)
class Candidate:
    """One prompt, and how it is drawn where that differs from the profile, with where it came from."""

    strategy: str
    prompt: str
    negative_prompt: str = ""
    phrases: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    parent: str | None = None
    guidance: float | None = None
    """Classifier-free guidance scale; None: as the profile says."""

    @property
    def id(self) -> str:
        """Hash of prompt, negative prompt and guidance: equal texts are one candidate, whatever wrote them."""
        drawn = [self.prompt, self.negative_prompt, *([] if self.guidance is None else [str(self.guidance)])]
        return hashlib.sha256("\0".join(drawn).encode()).hexdigest()[:16]

    @property
    def is_varied(self) -> bool:
        """Whether more than its words differs from what a format writes."""
        return bool(self.negative_prompt) or self.guidance is not None


def plain(attributes: Sequence[Attribute]) -> list[Attribute]:
    """Nothing but the style's name."""
    return []


def all_attributes(attributes: Sequence[Attribute]) -> list[Attribute]:
    """The likeliest value of every facet."""
    return list(attributes)


def high_confidence_only(attributes: Sequence[Attribute]) -> list[Attribute]:
    """The values that are more likely than not."""
    return [attribute for attribute in attributes if attribute.probability >= CONFIDENT]


def top_k(attributes: Sequence[Attribute]) -> list[Attribute]:
    """The FEW likeliest values."""
    return sorted(attributes, key=lambda attribute: -attribute.probability)[:FEW]


FORMATS: dict[str, Format] = {
    "plain": plain,
    "all_attributes": all_attributes,
    "high_confidence_only": high_confidence_only,
    "top_k": top_k,
}


def write(strategy: str, subject: str, attributes: Sequence[Attribute], fits: Callable[[str], bool]) -> Candidate:
    """The prompt that a format writes for a subject such as "ethnic wear". See `compose`."""
    return compose(strategy, subject, FORMATS[strategy](attributes), fits)


def compose(
    strategy: str,
    subject: str,
    attributes: Sequence[Attribute],
    fits: Callable[[str], bool],
    *,
    parent: str | None = None,
) -> Candidate:
    """The prompt that names all these attributes, at most one a facet.

    `fits` tells whether a text can be encoded whole; while it cannot, the least certain phrase goes, and `dropped`
    names it. Raises ValueError if not even the subject fits.
    """
    chosen, dropped = list(attributes), []
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
        parent=parent,
    )


def wording(subject: str, attributes: Sequence[Attribute]) -> str:
    """Such as: a photo of ethnic wear, green kurta, for women, summer. Colour and garment make one phrase.

    Without a subject that phrase stands in its place: a photo of a green kurta, for women, summer.
    """
    words = {attribute.facet: attribute.phrase for attribute in attributes}
    has_garment = "garment" in words
    item = " ".join(words.pop(facet) for facet in ("colour", "garment") if facet in words)
    if "audience" in words:
        words["audience"] = f"for {words['audience']}"
    if not subject:
        subject, item = with_article(item) if has_garment else f"{item} clothing".strip(), ""
    else:
        subject = with_article(subject)
    return ", ".join(part for part in (f"a photo of {subject}", item, *words.values()) if part)
