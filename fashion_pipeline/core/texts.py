"""The sentences that people read, from one file a language: `templates/texts/<language>.toml`."""

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

ENGLISH = "en"
_language: ContextVar[str] = ContextVar("language", default=ENGLISH)


def languages() -> list[str]:
    """The languages that have a file."""
    folder = files("fashion_pipeline") / "templates" / "texts"
    return sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".toml"))


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Everything said within is said in a language. Raises ValueError for one that has no file."""
    if language not in languages():
        raise ValueError(f"language {language!r} is not known: use one of {', '.join(languages())}")
    before = _language.set(language)
    try:
        yield
    finally:
        _language.reset(before)


def language() -> str:
    """The language that is spoken now."""
    return _language.get()


def texts() -> dict[str, Any]:
    """All sections of the language that is spoken now."""
    return _read(language())


def text(key: str, /, **values: object) -> str:
    """The sentence under a dotted key, such as `verdict.better`, with its {names} filled in. Raises KeyError."""
    section: Any = texts()
    for part in key.split("."):
        section = section[part]
    return str(section).format(**values)


@cache
def _read(name: str) -> dict[str, Any]:
    file = files("fashion_pipeline") / "templates" / "texts" / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))
