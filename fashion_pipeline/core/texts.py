"""The sentences that people read, from one file a language: `templates/texts/<language>.toml`."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

LANGUAGE = "en"


@cache
def texts(language: str = LANGUAGE) -> dict[str, Any]:
    """All sections of a language's file. Raises FileNotFoundError for a language that has none."""
    file = files("fashion_pipeline") / "templates" / "texts" / f"{language}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def text(key: str, /, **values: object) -> str:
    """The sentence under a dotted key, such as `verdict.better`, with its {names} filled in. Raises KeyError."""
    found: Any = texts()
    for part in key.split("."):
        found = found[part]
    return str(found).format(**values)
