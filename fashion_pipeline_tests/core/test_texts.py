import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fashion_pipeline.core.evaluation.measures import MEASURES
from fashion_pipeline.core.texts import ENGLISH, languages, speaking, text, texts


def sentences(section: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from sentences(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(value)


@pytest.mark.parametrize("language", languages())
def test_every_language_has_every_sentence_with_the_same_blanks(language: str) -> None:
    with speaking(ENGLISH):
        english = dict(sentences(texts()))
    with speaking(language):
        own = dict(sentences(texts()))
    assert own.keys() == english.keys()
    for key, sentence in english.items():
        assert sorted(set(re.findall(r"{\w+}", own[key]))) == sorted(set(re.findall(r"{\w+}", sentence))), key
    for measure in MEASURES:
        assert own[f"report.measures.{measure}"]


def test_a_language_is_spoken_within_and_no_longer() -> None:
    with speaking("zh-TW"):
        assert text("models.original") == "原始模型"
    assert text("models.original") == "original model"


def test_an_unknown_language_names_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="'fr' is not known: use one of en, zh-TW"), speaking("fr"):
        pass


def test_texts_are_part_of_the_installed_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "templates/**/*" in project["tool"]["setuptools"]["package-data"]["fashion_pipeline"]
