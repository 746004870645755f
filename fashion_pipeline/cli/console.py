"""What all commands share: the two consoles, tables, errors in one message, progress, the figures of a report."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from fashion_pipeline import api
from fashion_pipeline.settings import SettingsError

if TYPE_CHECKING:
    from fashion_pipeline.running.launching import Event

SIMILARITY = ("encoder", "judge")
"""Measures of the table that `run` and `report` print; the page has the others."""

SHOWN_ITEMS = 8

IDS = frozenset({"version", "key", "id", "run", "record", "path", "file"})
"""Columns that people copy from: they are never broken into two lines."""


class _Console(Console):
    """A console whose reader may leave, as `head` does: that is no error."""

    def on_broken_pipe(self) -> None:
        leave_quietly()


def leave_quietly() -> None:
    """End well, since nobody reads on; what Python would still write at its end goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(0)


@contextmanager
def _read_to_the_end() -> Iterator[None]:
    """A block that writes to the standard output, whose reader may leave."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        leave_quietly()


out, err = _Console(), _Console(stderr=True)

Style = Annotated[str, typer.Option("--style", "-s", help="The style, as in `fashion-pipeline styles`.")]


@contextmanager
def errors() -> Iterator[None]:
    """Errors that a user can mend are one message and exit code 1."""
    from fashion_pipeline.core.catalog.listing import CatalogError
    from fashion_pipeline.core.features.attributes import VocabularyError
    from fashion_pipeline.resources.alerting import AlertError
    from fashion_pipeline.stages.drawing.models import ModelError
    from fashion_pipeline.store.errors import StorageError
    from fashion_pipeline.web.services import ServiceError

    try:
        yield
    except (
        AlertError,
        ServiceError,
        api.RunError,
        CatalogError,
        ModelError,
        StorageError,
        SettingsError,
        VocabularyError,
        ValueError,
    ) as error:
        err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error
    except BrokenPipeError:
        leave_quietly()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        mend = "name another one, or set FASHION_PIPELINE_DATA to a folder that can be written and has room"
        err.print(f"[red]error:[/] {escape(where)}{escape(error.strerror or str(error))}: {mend}", soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        err.print("cancelled; what was computed is kept, and the next run goes on from there")
        raise typer.Exit(130) from None
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if library == "sqlalchemy":  # the instance's own database: a full disk, a lock, a server that is gone
            cause = str(getattr(error, "orig", error)).strip()
            message = (
                f"the database of the Dagster instance cannot be used ({cause}): make room, or start it, and try again"
            )
        elif library in ("duckdb", "_duckdb"):
            message = str(error)
        else:
            raise
        err.print(f"[red]error:[/] {escape(message)}", soft_wrap=True)
        raise typer.Exit(1) from error


@contextmanager
def progress_line(asked: str) -> Iterator[api.Follow]:
    """A bar with the step that is running and how far it is, and a line above it for each that ended or said something.

    Why the style that was asked for failed is the command's own last word, so here only the step is named.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as progress:
        yield _Follower(progress, asked)


class _Follower:
    """Shows the events of runs."""

    def __init__(self, progress: Progress, asked: str) -> None:
        self._progress, self._asked = progress, asked
        self._task = progress.add_task("starting", total=None, told="")
        self._steps, self._step = 0, 0

    def __call__(self, style: str, event: "Event") -> None:
        say = self._progress.console.print
        if event.kind == "planned":
            self._steps, self._step = event.total, 0
        elif event.kind == "started":
            self._step += 1
            place = f" {self._step}/{self._steps}" if self._steps else ""
            self._progress.reset(self._task, total=None, description=f"{style}{place}: {event.step}", told="")
        elif event.kind == "progress":
            self._progress.update(self._task, completed=event.done, total=event.total, told=escape(event.text))
            if not err.is_terminal:  # a log has no bar
                say(f"  [dim]{escape(event.text)}[/]", soft_wrap=True)
        elif event.kind == "message":
            say(f"  [dim]{escape(event.text)}[/]", soft_wrap=True)
        elif event.kind == "check":
            say(f"  [yellow]check: {escape(event.text)}[/]")
        elif event.kind == "failed":
            reason = "" if style == self._asked else escape(event.text)
            say(f"[red]✗[/] {style}: {event.step} {reason}".rstrip(), soft_wrap=True)
        else:
            say(f"[green]✓[/] {style}: {event.step} {'' if event.kind == 'finished' else event.kind}")


def warn(text: str) -> None:
    """Say something beside the answer."""
    err.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True)


def show_outcome(style: str) -> None:
    """Print what came of a style's newest run, a line each; the figures are a command further."""
    outcome = api.outcome(style)
    prompt = outcome.prompt
    drawn = {"negative prompt": prompt.negative_prompt, "guidance": prompt.guidance}
    beside = "".join(f"  ({name}: {value})" for name, value in drawn.items() if value)
    model = str(outcome.folder) if outcome.folder else "none was trained"
    if outcome.in_use and outcome.in_use != outcome.evaluated:
        state = f"version {outcome.in_use}, in use; the newest training: {outcome.state}"
    else:
        state = outcome.state
    lines = {
        "decision": f"{outcome.headline} {outcome.reason}",
        "model": f"{model} ({state})" if outcome.folder else model,
        "prompt": f"{prompt.prompt}{beside}",
        "report": str(api.report_page(style)),
        "next": outcome.next,
    }
    for name, line in lines.items():
        out.print(f"{name + ':':9} {line}", markup=False, soft_wrap=True)


def show_scores(found: dict[str, Any], page: Path) -> None:
    """Print the similarities, verdict and page of a report."""
    rows = [
        {
            "model": score["model"],
            "prompt": score["prompt"],
            "by": score["measure"],
            "split": score["split"],
            "similarity": f"{score['mean']:.3f}",
            "95 % interval": "" if score["low"] is None else f"{score['low']:.3f} to {score['high']:.3f}",
            "products": score["n"],
        }
        for score in found["scores"]
        if score["measure"] in SIMILARITY
    ]
    show(rows)
    out.print(f"best prompt: {found['optimized_prompt']}  ({found['strategy']})", markup=False)
    if on_prompt := found.get("prompt_verdict"):
        out.print(f"does it help: {on_prompt['verdict']}. {on_prompt['reason']}", markup=False)
    if decision := found.get("decision"):
        out.print(f"decision: {decision['headline']} {decision['reason']}", markup=False)
    elif found["verdict"]:
        out.print(f"verdict: {found['verdict']}. {found['reason']}", markup=False)
    out.print(f"report: {page}", markup=False, soft_wrap=True)


def show(rows: Sequence[Mapping[str, Any]], columns: Iterable[str] = ()) -> None:
    """Print rows under the names of their fields: as a table for a person, in a pipe as lines of values between tabs.

    `columns` are the names where there are no rows.
    """
    names = list(rows[0]) if rows else list(columns)
    if out.is_terminal:
        out.print(_table(names, rows))
    else:
        write_lines([names])
        write_lines([cell(value) for value in row.values()] for row in rows)


def write_lines(rows: Iterable[Iterable[str]]) -> None:
    """Write each row as a line of values between tabs, whatever white space is in them."""
    with _read_to_the_end():
        for row in rows:
            sys.stdout.write("\t".join(" ".join(value.split()) for value in row) + "\n")


def print_json(values: object) -> None:
    """Print values as JSON."""
    with _read_to_the_end():
        sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def show_or_say(rows: Sequence[Mapping[str, Any]], nothing: str) -> None:
    """Show rows, or say what it means that there are none."""
    if rows:
        show(rows)
    else:
        out.print(nothing)


def _table(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        whole = name in IDS
        table.add_column(escape(str(name)), overflow="ignore" if whole else "fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(escape(cell(value)) for value in row.values()))
    return table


def cell(value: object) -> str:
    """Text for a terminal: bytes and long lists by their size."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, list) and len(value) > SHOWN_ITEMS:
        return f"({len(value)} values)"
    return str(value)


def megabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
