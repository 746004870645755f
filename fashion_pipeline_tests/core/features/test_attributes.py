"""The vocabulary that photos are asked about, and what is made of the encoder's answers."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fashion_pipeline.core.features.attributes import (
    TOP_VALUES,
    Question,
    Vocabulary,
    VocabularyError,
    answer,
    by_photo,
    ensemble,
    garments_named,
    given_values,
    mean_values,
    one_a_facet,
    phrased,
    read_vocabulary,
    with_article,
    without_other_garments,
)
from fashion_pipeline.core.tables import rows_to_table
from fashion_pipeline.settings import profile_names, read_profile

COLOURS = '[colour]\n"Red" = ["red", "scarlet"]\n"Navy Blue" = ["navy"]\n'


def vocabulary_in(folder: Path, text: str) -> Path:
    path = folder / "vocabulary.toml"
    path.write_text(text, encoding="utf-8")
    return path


def unit(*rows: list[float]) -> np.ndarray:
    matrix = np.array(rows, np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def answers(*rows: tuple[str, str, str, float]) -> pa.Table:
    names = ("id", "facet", "value", "probability")
    return rows_to_table("attributes", [dict(zip(names, row, strict=True)) for row in rows])


def test_every_phrase_is_asked_in_every_template(tmp_path: Path) -> None:
    text = '[templates]\ncolour = ["{} clothing", "a {} garment"]\n' + COLOURS
    questions = read_vocabulary(vocabulary_in(tmp_path, text)).questions()
    assert [question.value for question in questions] == ["Red", "Navy Blue"]
    assert questions[0].texts == ("red clothing", "scarlet clothing", "a red garment", "a scarlet garment")


def test_a_facet_without_templates_is_asked_in_its_bare_words(tmp_path: Path) -> None:
    assert read_vocabulary(vocabulary_in(tmp_path, COLOURS)).questions()[1].texts == ("navy",)


def test_a_prompt_uses_the_everyday_phrase_and_lower_case_for_what_the_vocabulary_does_not_know(tmp_path: Path) -> None:
    vocabulary = read_vocabulary(vocabulary_in(tmp_path, COLOURS))
    assert vocabulary.phrase("colour", "Navy Blue") == "navy"
    assert vocabulary.phrase("colour", "Teal") == vocabulary.phrase("fabric", "Teal") == "teal"


@pytest.mark.parametrize("profile", profile_names())
def test_the_vocabulary_that_ships_with_a_profile_can_be_read(profile: str) -> None:
    questions = read_vocabulary(read_profile(profile).vocabulary).questions()
    assert {"garment", "colour"} <= {question.facet for question in questions}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[colour]\n"Red" = ["red"]\n"Pink" = ["red"]\n', "'red' stands under 'Red' and 'Pink': keep one"),
        ("[colour]\n", r"\[colour\] has 0 values: give two or more, or remove it"),
        ('[colour]\n"Red" = ["red"]\n', r"\[colour\] has 1 values"),
        ('[colour]\n"Red" = []\n"Pink" = ["pink"]\n', "'Red' has an empty phrase"),
        ('[colour]\n"Red" = [" "]\n"Pink" = ["pink"]\n', "'Red' has an empty phrase"),
        ('[garment]\n"Caps" = "cap"\n"Ties" = "tie"\n', "'Caps' is no list of texts"),
        ('[colour]\n"Red" = [1]\n"Pink" = ["pink"]\n', "'Red' is no list of texts"),
        ('[templates]\ncolour = "{}"\n' + COLOURS, r"\[templates\] 'colour' is no list of texts"),
        ("colour = 3\n", r"'colour' is no table: write \[colour\]"),
        ("[colour\n", "restore the file or mend the line"),
    ],
)
def test_a_slip_in_the_vocabulary_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = vocabulary_in(tmp_path, text)
    with pytest.raises(VocabularyError, match=message) as error:
        read_vocabulary(path)
    assert str(path) in str(error.value)


def test_a_missing_or_unreadable_vocabulary_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"gone\.toml.*restore the file"):
        read_vocabulary(tmp_path / "gone.toml")
    (tmp_path / "latin.toml").write_bytes('[colour]\n"Écru" = ["écru"]'.encode("latin-1"))
    with pytest.raises(VocabularyError, match=r"latin\.toml"):
        read_vocabulary(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("kurta", "a kurta"),
        ("umbrella", "an umbrella"),
        ("uniform", "a uniform"),
        ("jeans", "jeans"),
        ("dress", "a dress"),
        ("ethnic wear", "ethnic wear"),
        ("blue denim", "blue denim"),
    ],
)
def test_articles_read_like_english(phrase: str, expected: str) -> None:
    assert with_article(phrase) == expected


def test_a_question_stands_for_the_mean_direction_of_its_texts() -> None:
    means = ensemble(unit([1, 0], [0, 1], [0, -1]), [2, 1])
    assert np.allclose(means, unit([1, 1], [0, -1]))


def test_each_photo_gets_its_likeliest_values_and_every_facet_is_a_distribution_of_its_own() -> None:
    values = [Question("colour", name, (name,)) for name in ("red", "pink", "navy", "teal")]
    values += [Question("season", name, (name,)) for name in ("summer", "winter")]
    texts = unit([1, 0], [1, 0.2], [0, 1], [-1, 0], [1, 0], [0, 1])
    table = answer(["sunny", "dark"], unit([1, 0], [0, 1]), values, texts, scale=10.0)
    rows = table.to_pylist()
    found = {photo: [r for r in rows if r["id"] == photo] for photo in ("sunny", "dark")}
    assert [r["value"] for r in found["sunny"]] == ["red", "pink", "navy", "summer", "winter"]
    assert found["dark"][0]["value"] == "navy" and found["dark"][TOP_VALUES]["value"] == "winter"
    assert sum(r["probability"] for r in found["sunny"] if r["facet"] == "season") == pytest.approx(1.0)
    assert sum(r["probability"] for r in found["sunny"] if r["facet"] == "colour") < 1.0 + 1e-6
    attributes = by_photo(table, Vocabulary({}, {}))
    assert {photo: [each.value for each in own] for photo, own in attributes.items()} == {
        "sunny": ["summer", "red"],
        "dark": ["winter", "navy"],
    }


def test_a_large_logit_scale_gives_no_nan() -> None:
    values = [Question("season", name, (name,)) for name in ("summer", "winter")]
    rows = answer(["a"], unit([1, 0]), values, unit([1, 0], [-1, 0]), scale=1e6)
    assert rows["probability"].to_pylist() == [1.0, 0.0]


def test_one_confident_photo_does_not_decide_for_the_style() -> None:
    rows = [("a", "colour", "Red", 0.9), *((photo, "colour", "Navy Blue", 0.6) for photo in "bc")]
    rows += [(photo, "season", "Summer", 0.8) for photo in "abc"]
    values = phrased(mean_values(answers(*rows)), Vocabulary({"colour": {"Navy Blue": ("navy",)}}, {}))
    season, colour = one_a_facet(values)
    assert (season.value, season.probability) == ("Summer", pytest.approx(0.8))
    assert (colour.value, colour.phrase, colour.probability) == ("Navy Blue", "navy", pytest.approx(0.4))


def test_a_style_without_photos_has_no_attributes() -> None:
    assert phrased(mean_values(answers()), Vocabulary({}, {})) == []


GARMENTS = Vocabulary(
    {
        "garment": {
            "Jackets": ("jacket", "coat", "zip jacket"),
            "Backpacks": ("backpack", "school bag"),
            "Handbags": ("handbag", "purse"),
            "Casual Shoes": ("casual shoe", "casual sneakers"),
            "Dresses": ("dress", "gown"),
            "Shirts": ("shirt", "dress shirt"),
            "Sweaters": ("sweater", "knitwear"),
        },
        "colour": {"Red": ("red",), "Blue": ("blue",)},
    },
    {},
)


@pytest.mark.parametrize(
    ("subject", "garments"),
    [
        ("coat", {"Jackets"}),
        ("winter coats", {"Jackets"}),
        ("bag", {"Backpacks", "Handbags"}),
        ("sneaker", {"Casual Shoes"}),
        ("dress", {"Dresses"}),
        ("ethnic wear", set()),
        ("my 2024 line", set()),
    ],
)
def test_a_style_that_is_called_after_a_garment_stands_for_it(subject: str, garments: set[str]) -> None:
    assert garments_named(subject, GARMENTS) == garments


def test_a_coat_is_never_called_a_backpack_whatever_the_encoder_sees() -> None:
    rows = answers(("a", "garment", "Backpacks", 0.9), ("a", "garment", "Jackets", 0.1), ("a", "colour", "Red", 0.6))
    assert without_other_garments(rows, "coat", GARMENTS)["value"].to_pylist() == ["Jackets", "Red"]
    assert without_other_garments(rows, "ethnic wear", GARMENTS) == rows


def test_what_came_with_photos_is_counted_over_all_of_them() -> None:
    given = [{"colour": "Red"}, {"colour": "Red", "shop": "x"}, {"colour": "Blue"}, {}]
    (found,) = given_values(given, GARMENTS)
    assert (found.facet, found.phrase, found.probability) == ("colour", "red", 0.5)
