"""Zero-shot attributes: a vocabulary of facets and values, and what the encoder answers for each photo."""

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fashion_pipeline.core.tables import schema

GARMENT = "garment"
"""The facet that says what a photo shows."""

TOP_VALUES = 3
"""Answers kept for each photo and facet."""

_NO_GARMENT = ("wear", "clothing", "clothe", "style", "fashion", "outfit", "look", "collection")
"""Last words of style names, in the singular, that say nothing about the garment."""

_PLURALS = ("denim", "hosiery", "footwear", "outerwear", "knitwear", "underwear", "clothing", "wear")


class VocabularyError(ValueError):
    """A vocabulary file that cannot be used; the message names the facet and the mend."""


@dataclass(frozen=True)
class Attribute:
    """One answer: a facet's value, the words for it in a prompt, and its probability (0 to 1)."""

    facet: str
    value: str
    phrase: str
    probability: float

    @property
    def key(self) -> tuple[str, str]:
        """Facet and value."""
        return self.facet, self.value


@dataclass(frozen=True)
class Question:
    """One value of a facet and the texts that ask for it; their embeddings are averaged (prompt ensemble)."""

    facet: str
    value: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """Facet → value → phrases, the everyday phrase first, and the templates of each facet's questions."""

    facets: Mapping[str, Mapping[str, tuple[str, ...]]]
    templates: Mapping[str, tuple[str, ...]]
    drawn: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Facet → phrases that only prompts try, and no photo is asked about: how a picture is taken, its light."""

    def phrase(self, facet: str, value: str) -> str:
        """The everyday words for a value; the value itself where the vocabulary does not know it."""
        return self.facets.get(facet, {}).get(value, (value.lower(),))[0]

    def questions(self) -> list[Question]:
        """All questions, facet by facet."""
        return [
            Question(
                facet, value, tuple(_ask(facet, t, p) for t in self.templates.get(facet, ("{}",)) for p in phrases)
            )
            for facet, values in self.facets.items()
            for value, phrases in values.items()
        ]


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a vocabulary file: a table for each facet, `value = [phrases]`, and the tables `templates` and `drawn`.

    Raises VocabularyError for a missing file, a facet without two values, an empty phrase, a phrase given twice,
    templates of a facet that is not there, or a facet that is both asked about and only drawn.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise VocabularyError(f"vocabulary {path}: {error}: restore the file or mend the line") from error
    data.pop("broader", None)
    facets = {facet: _texts(path, facet, values) for facet, values in data.items()}
    templates, drawn = facets.pop("templates", {}), facets.pop("drawn", {})
    if both := sorted(drawn.keys() & facets.keys()):
        raise VocabularyError(f"vocabulary {path}: [drawn] {both[0]!r} is a facet of its own, too: rename one of them")
    for facet, values in facets.items():
        _check_facet(path, facet, values)
    for facet, phrases in drawn.items():
        if not phrases or not all(phrase.strip() for phrase in phrases):
            raise VocabularyError(f"vocabulary {path}: [drawn] {facet!r} has an empty phrase: write one, or remove it")
    if unknown := sorted(templates.keys() - facets.keys()):
        raise VocabularyError(
            f"vocabulary {path}: [templates] {unknown[0]!r} is no facet of this file ({', '.join(facets)}): correct "
            "its name, or add the facet"
        )
    return Vocabulary(facets, templates, drawn)


def with_article(phrase: str) -> str:
    """ "kurta" → "a kurta", "umbrella" → "an umbrella"; plurals stay as they are."""
    last = phrase.split()[-1]
    if last in _PLURALS or (last.endswith("s") and not last.endswith("ss")):
        return phrase
    return ("an " if phrase[0] in "aeiou" and not phrase.startswith("uni") else "a ") + phrase


def ensemble(texts: NDArray[np.float32], sizes: Sequence[int]) -> NDArray[np.float32]:
    """(sum(sizes), d) unit rows → (len(sizes), d) unit rows: the mean direction of each question's texts.

    Prompt ensembling as in CLIP (Radford et al. 2021, section 3.1.4).
    """
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    means = np.add.reduceat(texts, starts, axis=0)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


def answer(
    ids: Sequence[str],
    images: NDArray[np.float32],
    questions: Sequence[Question],
    texts: NDArray[np.float32],
    scale: float,
    temperatures: Mapping[str, float] | None = None,
) -> pa.Table:
    """Table `attributes`: for each photo and facet the likeliest values with their probabilities.

    `images` (n, d) and `texts` (len(questions), d) are unit rows; `scale` is the encoder's logit scale. Probabilities
    are a softmax over the values of one facet, at the facet's temperature, which is 1 where none is given.
    """
    parts = [schema("attributes").empty_table()]
    named = pa.array(ids, pa.string())
    for facet, positions in by_facet(questions).items():
        temperature = (temperatures or {}).get(facet, 1.0)
        probabilities = softmax(facet_logits(images, texts[positions], scale) / temperature)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP_VALUES]
        columns = [
            named.take(pa.array(np.repeat(np.arange(len(ids)), best.shape[1]))),
            pa.array([facet] * best.size, pa.string()),
            pa.array([questions[at].value for at in positions]).take(pa.array(best.ravel())),
            pa.array(np.take_along_axis(probabilities, best, axis=1).ravel()),
        ]
        parts.append(pa.table(columns, schema=schema("attributes")))
    return pa.concat_tables(parts)


def by_facet(questions: Sequence[Question]) -> dict[str, list[int]]:
    """Facet → the places of its questions, both in their order."""
    places: dict[str, list[int]] = {}
    for place, question in enumerate(questions):
        places.setdefault(question.facet, []).append(place)
    return places


def facet_logits(images: NDArray[np.float32], texts: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """(n, d) images and (k, d) questions of one facet, unit rows → (n, k) logits."""
    return np.asarray(scale * images @ texts.T, np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, k) logits → (n, k) probabilities, a row summing to 1."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), np.float32)


def garments_named(subject: str, vocabulary: Vocabulary) -> set[str]:
    """The garments that a style's name stands for, such as all kinds of bag for "bag"; empty where it names none.

    A value counts where one of its phrases ends with the last word of the name, singular or plural.
    """
    noun = _singular(subject.split()[-1].lower())
    if len(noun) < 3 or noun in _NO_GARMENT:
        return set()
    return {
        value
        for value, phrases in vocabulary.facets.get(GARMENT, {}).items()
        if any(_singular(phrase).endswith(noun) for phrase in phrases)
    }


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def without_other_garments(rows: pa.Table, subject: str, vocabulary: Vocabulary) -> pa.Table:
    """Rows with a facet and a value, without the garments that a style's name rules out: a coat is no backpack.

    All rows where the name stands for no garment of the vocabulary.
    """
    named = garments_named(subject, vocabulary)
    if not named:
        return rows
    return rows.filter((pc.field("facet") != GARMENT) | pc.field("value").isin(sorted(named)))


def mean_values(rows: pa.Table) -> pa.Table:
    """Every facet and value with its mean probability over the photos, from `attributes` rows of these photos.

    A value that is not among a photo's kept answers counts as 0 there.
    """
    photos = pc.count_distinct(rows["id"]).as_py()
    sums = rows.group_by(["facet", "value"], use_threads=False).aggregate([("probability", "sum")])
    means = np.minimum(sums["probability_sum"].to_numpy() / max(photos, 1), 1.0)
    return sums.select(["facet", "value"]).append_column("probability", pa.array(means, pa.float64()))


def phrased(values: pa.Table, vocabulary: Vocabulary) -> list[Attribute]:
    """Rows with a facet, a value and a probability as attributes, likeliest first."""
    return _likeliest(
        Attribute(facet, value, vocabulary.phrase(facet, value), probability)
        for facet, value, probability in _listed(values, "facet", "value", "probability")
    )


def by_photo(rows: pa.Table, vocabulary: Vocabulary) -> dict[str, list[Attribute]]:
    """Photo → the likeliest value of each facet, likeliest first, from `attributes` rows as `answer` orders them."""
    best = rows.group_by(["id", "facet"], use_threads=False).aggregate([("value", "first"), ("probability", "first")])
    attributes: dict[str, list[Attribute]] = {}
    for id_, facet, value, probability in _listed(best, "id", "facet", "value_first", "probability_first"):
        attributes.setdefault(id_, []).append(Attribute(facet, value, vocabulary.phrase(facet, value), probability))
    return {id_: _likeliest(each) for id_, each in attributes.items()}


def _likeliest(values: Iterable[Attribute]) -> list[Attribute]:
    return sorted(values, key=lambda attribute: -attribute.probability)


def _listed(rows: pa.Table, *columns: str) -> Iterable[tuple[Any, ...]]:
    return zip(*(rows[name].to_pylist() for name in columns), strict=True)


def one_a_facet(values: Iterable[Attribute]) -> list[Attribute]:
    """The first value of each facet."""
    first: dict[str, Attribute] = {}
    for value in values:
        first.setdefault(value.facet, value)
    return list(first.values())


def given_values(photos: Sequence[Mapping[str, str]], vocabulary: Vocabulary) -> list[Attribute]:
    """What came with photos: the most frequent value of each facet with its share of all photos, most frequent first.

    Only facets of the vocabulary; a value that it does not know stands for itself, in small letters.
    """
    counts = Counter(
        (facet, value.strip()) for each in photos for facet, value in each.items() if facet in vocabulary.facets
    )
    best: dict[str, Attribute] = {}
    for (facet, value), count in counts.most_common():
        if value:
            best.setdefault(facet, Attribute(facet, value, vocabulary.phrase(facet, value), count / len(photos)))
    return list(best.values())


def _ask(facet: str, template: str, phrase: str) -> str:
    return template.format(with_article(phrase) if facet == GARMENT else phrase)


def _texts(path: Path, name: str, table: object) -> dict[str, tuple[str, ...]]:
    """A table of the file; a single text in place of a list would else be taken apart into letters."""
    if not isinstance(table, dict):
        raise VocabularyError(f"vocabulary {path}: {name!r} is no table: write [{name}], then a value on each line")
    for key, texts in table.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise VocabularyError(f"vocabulary {path}: [{name}] {key!r} is no list of texts: write it in brackets")
    return {key: tuple(texts) for key, texts in table.items()}


def _check_facet(path: Path, facet: str, values: Mapping[str, tuple[str, ...]]) -> None:
    if len(values) < 2:
        raise VocabularyError(
            f"vocabulary {path}: facet [{facet}] has {len(values)} values: give two or more, or remove it"
        )
    seen: dict[str, str] = {}
    for value, phrases in values.items():
        if not phrases or not all(phrase.strip() for phrase in phrases):
            raise VocabularyError(
                f"vocabulary {path}: [{facet}] {value!r} has an empty phrase: write how people say it"
            )
        for phrase in phrases:
            if phrase in seen:
                raise VocabularyError(
                    f"vocabulary {path}: [{facet}] {phrase!r} stands under {seen[phrase]!r} and {value!r}: keep one"
                )
            seen[phrase] = value
