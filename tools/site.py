"""What MkDocs adds to docs/: pages that stand elsewhere in the project, and references made from the code itself.

A hook, as https://www.mkdocs.org/user-guide/configuration/#hooks describes. Links between files of the project become
links between pages, so that both the site and a viewer of the repository follow them.
"""

import inspect
import json
import posixpath
import re
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from fashion_pipeline import api
from fashion_pipeline.cli import app
from fashion_pipeline.core.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/README.md": "deploy.md",
    "deploy/kubernetes/README.md": "kubernetes.md",
    "tools/embedded_models/README.md": "embedded_models.md",
}
"""File of the project → its page in the site; what is in docs/ keeps its name."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of PAGES, and the references."""
    made = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in PAGES.items()}
    made |= {"reference/command.md": _command(), "reference/recipe.md": _recipe(), "reference/api.md": _api()}
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links between files of the project at their pages; what has no page keeps its words."""
    path = page.file.src_uri
    source = next((source for source, made in PAGES.items() if made == path), f"docs/{path}")

    def relinked(match: re.Match[str]) -> str:
        picture, words, target, anchor = match.groups()
        aimed = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        made = PAGES.get(aimed) or PAGES.get(f"{aimed}/README.md") or aimed.removeprefix("docs/")
        if made == aimed:  # outside of docs/, and no page
            if not (ROOT / aimed).exists():
                raise FileNotFoundError(f"{source} links to {target}, which is not there")
            return words
        return f"{picture}[{words}]({posixpath.relpath(made, posixpath.dirname(path))}{anchor or ''})"

    return _LINK.sub(relinked, markdown)


def _command() -> str:
    command = typer.main.get_command(app)
    return get_docs_for_click(obj=command, ctx=typer.Context(command), name="fashion-pipeline")


def _recipe() -> str:
    properties = Recipe.model_json_schema()["properties"]
    rows = [
        f"| `{name}` | {_code(properties[name].get('default'))} | {_values(properties[name])} | {field.description} |"
        for name, field in Recipe.model_fields.items()
    ]
    return "\n".join(
        [
            "# Every knob of a training",
            "",
            "[Knobs](../knobs.md) groups them and says where they are set.",
            "",
            "| knob | default | values | what it does |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _code(value: Any) -> str:
    return ", ".join(f"`{json.dumps(part)}`" for part in (value if isinstance(value, list) else [value]))


def _values(schema: dict[str, Any]) -> str:
    """What a field takes, from its JSON schema: the values of an enumeration, or a range."""
    if "anyOf" in schema:
        return " or ".join(_values(choice) for choice in schema["anyOf"])
    if "items" in schema:
        return f"any of {_values(schema['items'])}"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    return str(schema["type"]) if low is None else f"{low} to {high}" if high is not None else f"{low} or more"


def _api() -> str:
    named = (getattr(api, name) for name in api.__all__)
    blocks = [f"::: {each.__module__}.{each.__qualname__}\n" for each in named if inspect.isfunction(each)]
    head = ["# Functions for notebooks", "", "`from fashion_pipeline import api`, then `api.run(…)`.", ""]
    return "\n".join([*head, *blocks])
