"""Captions from product attributes in everyday words, and which photos a caption is true of."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tools.embedded_models.photos import Photos

VOCABULARY = Path(__file__).parents[2] / "fashion_pipeline" / "embedded" / "vocabulary.toml"
FACETS = {"garment": "articleType", "colour": "baseColour", "audience": "gender", "season": "season", "usage": "usage"}
CHANCE = {"garment": 0.9, "colour": 0.7, "audience": 0.4, "season": 0.2, "usage": 0.35}
RESERVED = {"garment": {"Kurtas", "Kurtis", "Dupatta"}, "usage": {"Ethnic"}}
OPENINGS = ("", "", "a photo of ", "a picture of ", "an image of ", "a product photo of ", "a studio photo of ")
ENDINGS = (
    "",
    "",
    "",
    " on a white background",
    ", product photo",
    ", studio lighting",
    ", high quality",
    ", front view",
)
NOUNS = ("clothing", "garment", "fashion item", "product", "outfit", "wear")
PLURAL = (
    "denim",
    "hosiery",
    "pantyhose",
    "footwear",
    "outerwear",
    "topwear",
    "bottomwear",
    "underwear",
    "knitwear",
    "ethnic wear",
    "clothing",
    "wear",
)


@dataclass(frozen=True)
class Caption:
    """A text, and for each facet it mentions the catalog values of which it is true."""

    text: str
    content: dict[str, frozenset[str]] = field(default_factory=dict)


def load_vocabulary(path: Path = VOCABULARY) -> dict[str, dict[str, list[str]]]:
    """Facet → value → phrases, with `templates` and `broader` beside the facets."""
    with path.open("rb") as stream:
        return tomllib.load(stream)


def with_article(phrase: str) -> str:
    """ "kurta" → "a kurta", "umbrella" → "an umbrella", "jeans" stays."""
    last = phrase.split()[-1]
    if phrase in PLURAL or (last.endswith("s") and not last.endswith("ss")):
        return phrase
    return ("an " if phrase[0] in "aeiou" and not phrase.startswith("uni") else "a ") + phrase


def attributes_of(photos: Photos, vocabulary: dict) -> list[dict[str, str]]:
    """One dictionary a photo: facet → value, only values that the vocabulary knows."""
    rows = zip(*(photos.columns[column] for column in FACETS.values()), strict=True)
    return [
        {facet: str(value) for facet, value in zip(FACETS, row, strict=True) if value in vocabulary[facet]}
        for row in rows
    ]


def without_reserved(vocabulary: dict) -> dict:
    """The vocabulary of the generator: no word of the style that it must not know."""
    kept = {
        facet: {value: phrases for value, phrases in vocabulary[facet].items() if value not in RESERVED.get(facet, ())}
        for facet in FACETS
    }
    broader = {
        word: [value for value in values if value in kept["garment"]] for word, values in vocabulary["broader"].items()
    }
    return vocabulary | kept | {"broader": {word: values for word, values in broader.items() if values}}


def compose(
    attributes: dict[str, str], vocabulary: dict, rng: np.random.Generator, chance: dict[str, float] = CHANCE
) -> Caption:
    """A caption of a random part of `attributes`: a sentence mostly, a bare list of words at times."""
    chosen = {facet: value for facet, value in attributes.items() if rng.random() < chance[facet]}
    if not chosen and attributes:
        facet = str(rng.choice(list(attributes)))
        chosen = {facet: attributes[facet]}
    content = {facet: frozenset((value,)) for facet, value in chosen.items()}
    words = {facet: _pick(vocabulary[facet][value], rng) for facet, value in chosen.items()}
    if "garment" in chosen and rng.random() < 0.15:
        covering = [word for word, values in vocabulary["broader"].items() if chosen["garment"] in values]
        if covering:
            words["garment"] = _pick(covering, rng)
            content["garment"] = frozenset(vocabulary["broader"][words["garment"]])
    text = _listing(words, rng) if rng.random() < 0.2 else _sentence(words, rng)
    return Caption(text, content)


def _pick(options: list[str] | tuple[str, ...], rng: np.random.Generator) -> str:
    """The first option half of the time, else any."""
    return options[0] if rng.random() < 0.5 else options[int(rng.integers(len(options)))]


def _any(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _listing(words: dict[str, str], rng: np.random.Generator) -> str:
    values = list(words.values())
    rng.shuffle(values)
    return ", ".join(values)


def _sentence(words: dict[str, str], rng: np.random.Generator) -> str:
    """Colour, use and season before the noun or after it; audience after it."""
    before, after = [], []
    if "colour" in words:
        before.append(words["colour"])
    if "usage" in words:
        _place(before, after, words["usage"], _any((", {} style", ", {} wear", " for {} wear"), rng), rng)
    if "season" in words:
        _place(before, after, words["season"], _any((" for {}", " in {}", ", {} season", ", {} collection"), rng), rng)
    if "audience" in words:
        after.append(f" for {words['audience']}")
    rng.shuffle(before)
    rng.shuffle(after)
    noun = " ".join([*before, words.get("garment") or _any(NOUNS, rng)])
    noun = with_article(noun) if rng.random() < 0.8 else noun
    return _any(OPENINGS, rng) + noun + "".join(after) + _any(ENDINGS, rng)


def _place(before: list[str], after: list[str], word: str, ending: str, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        before.append(word)
    else:
        after.append(ending.format(word))


def join(captions: list[Caption]) -> Caption:
    """One long caption that says everything the given ones say of the same photo."""
    content: dict[str, frozenset[str]] = {}
    for caption in captions:
        for facet, values in caption.content.items():
            content[facet] = content.get(facet, values) & values
    return Caption(", ".join(caption.text for caption in captions), content)


def is_true_of(caption: Caption, attributes: dict[str, str]) -> bool:
    """Whether each facet that the caption mentions has one of its values in `attributes`."""
    return all(attributes.get(facet) in values for facet, values in caption.content.items())


def question(vocabulary: dict, facet: str, phrase: str, template: str) -> str:
    """A template of `facet` filled with a phrase: "a photo of a kurta"."""
    return template.format(with_article(phrase) if facet == "garment" else phrase)
