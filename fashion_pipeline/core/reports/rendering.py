"""Filling the templates of `templates/`: everything is escaped, a page is one file and asks for nothing."""

from functools import cache
from urllib.parse import urlsplit

import jinja2

from fashion_pipeline.core.texts import language


def rendered(template: str, **values: object) -> str:
    """A page, in the language that is spoken now. Raises jinja2.UndefinedError for a value that is missing."""
    return _environment().get_template(template).render(language=language(), **values)


def safe_link(url: str | None) -> str | None:
    """An http or https address; None for anything else, such as a script."""
    return url if url and urlsplit(url).scheme in ("http", "https") else None


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("fashion_pipeline", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
