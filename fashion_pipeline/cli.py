"""The fashion-pipeline command: a thin face of `api.py`."""

import json
import os
import socket
import sys
import webbrowser
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from fashion_pipeline import api
from fashion_pipeline.core.catalog.listing import style_slug
from fashion_pipeline.settings import TEMPLATES, SettingsError, enter, read_settings

if TYPE_CHECKING:
    from fashion_pipeline.launching import Event

SIMILARITY = ("encoder", "judge")
"""Measures of the table that `run` and `report` print; the page has the others."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Finds the prompts and trains the weights that bring Stable Diffusion to your styles, and proves it.\n\n"
    "Start with `fashion-pipeline run --style coat --source data/samples`, "
    "then `fashion-pipeline report --style coat --open` and `fashion-pipeline ui`.",
)
out, err = Console(), Console(stderr=True)

SHOWN_ITEMS = 8

Style = Annotated[str, typer.Option("--style", "-s", help="The style, as in `fashion-pipeline styles`.")]


class Mode(StrEnum):
    """What to run."""

    prompt = "prompt"
    finetune = "finetune"
    full = "full"


@app.command()
def run(
    style: Style,
    mode: Annotated[
        Mode,
        typer.Option(help="**prompt**: find the best prompt, minutes. **finetune**: train weights. **full**: both."),
    ] = Mode.full,
    source: Annotated[
        str | None,
        typer.Option(help="A folder with a folder of photos per style, a CSV or Parquet manifest, or IDX files."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps instead of the profile's.")] = None,
    budget: Annotated[
        int | None,
        typer.Option(min=2, help="Images that the prompt search may draw; 8 or more. It pays for the best by text."),
    ] = None,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help="A prompt of your own that competes; may be repeated.")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Rounds of prompt search; each run starts one from the winners of the last."),
    ] = None,
    products: Annotated[
        int | None,
        typer.Option(min=1, help="Most held-out products of dev, and of test, that prompts and models draw."),
    ] = None,
    knobs: Annotated[
        list[str] | None,
        typer.Option("--set", help="A knob of the training, as `rank=8` or `caption_dropout=0.2`; may be repeated."),
    ] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Forget what was chosen for this style before.")] = False,
) -> None:
    """Run the pipeline for one style. What exists is not computed again; Ctrl-C cancels the run.

    Steps, budget, products and knobs are remembered for the style, also for runs of the schedule and the sensor.
    """
    with _errors():
        config = _config(steps, budget, products, knobs or [], prompts or [], rounds)
        with _progress(style_slug(style)) as follow:
            api.run(style, mode.value, source, config, follow, forget=defaults)
        _show_report(style)


@app.command()
def generate(
    style: Style,
    prompt: Annotated[str, typer.Option(help="What to draw.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many images.")] = 4,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the PNG files.")] = Path("generated"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first image; the others count up.")] = 0,
) -> None:
    """Draw images with a style's published model."""
    with _errors():
        for path in api.generate(style, prompt, n, folder, seed, _warn):
            out.print(str(path), soft_wrap=True)


@app.command()
def report(
    style: Style,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    opened: Annotated[bool, typer.Option("--open", help="Open the HTML page in a browser.")] = False,
) -> None:
    """What prompts and training gained for a style, and the verdict."""
    with _errors():
        if as_json:
            print(json.dumps(api.report(style), indent=2, ensure_ascii=False))
        elif opened:
            webbrowser.open(api.report_page(style).as_uri())
        else:
            _show_report(style)


@app.command()
def styles() -> None:
    """All known styles with their photos, verdict and published version."""
    with _errors():
        rows = api.styles(_warn)
    if rows:
        out.print(_table(rows))
    else:
        out.print("No styles yet. Start with: fashion-pipeline run --style coat --source data/samples")


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="For example: SELECT style, split, count(*) FROM images GROUP BY ALL")],
) -> None:
    """Ask all tables with DuckDB; every table has a column `style`.

    It only reads: nothing is written, and no file outside of the data root can be touched. In a pipe the answer is
    lines of values between tabs, after a line with the columns' names.
    """
    with _errors():
        answer = api.sql(query, _warn)
    columns, rows = answer.column_names, answer.to_pylist()
    if out.is_terminal:
        out.print(_table(rows, columns))
    else:
        for values in (columns, *(map(_cell, row.values()) for row in rows)):
            print("\t".join(" ".join(value.split()) for value in values))
    if columns and not rows:
        err.print("no rows")


@app.command()
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove superseded trainings, models, images and caches. Published versions and the newest of all stay."""
    with _errors():
        found = api.prune(dry_run=dry_run)
    if found:
        out.print(_table([{"what": each.what, "why": each.why, "MB": f"{each.size / 1e6:.1f}"} for each in found]))
    total = sum(each.size for each in found) / 1e6
    out.print(f"{'could free' if dry_run else 'freed'} {total:.1f} MB")


@app.command()
def move(
    source: Annotated[str, typer.Argument(help="The folder, manifest or IDX files where the photos lie now.")],
) -> None:
    """Let all styles of a source come from there, wherever their photos came from before."""
    with _errors():
        moved = api.move(source)
    out.print(f"{', '.join(moved)}: photos are now taken from {Path(source).expanduser().resolve()}", soft_wrap=True)


@app.command()
def remove(
    style: Style,
    sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget a style: its source, choices and results. Its photos and published versions stay."""
    if not sure:
        typer.confirm(f"Forget {style!r} with all its results?", abort=True)
    with _errors():
        api.remove(style)
    out.print(f"{escape(style)} is forgotten; fashion-pipeline prune removes its images")


@app.command()
def doctor(
    profile: Annotated[str | None, typer.Option(help="Examine this profile instead of the current one.")] = None,
) -> None:
    """Check versions, storage, device and models, and say how to mend what is missing."""
    with _errors():
        findings = api.doctor(profile)
    for check in findings:
        mark = "[green]ok[/]     " if check.ok else "[red]missing[/]"
        out.print(f"{mark} {check.name:18} {escape(check.found)}", soft_wrap=True)
        if not check.ok:
            out.print(f"        {'':18} [yellow]→ {escape(check.mend)}[/]", soft_wrap=True)
    raise typer.Exit(0 if all(check.ok for check in findings) else 1)


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 3000) -> None:
    """Start the Dagster UI and its daemon on this machine; stop them with Ctrl-C."""
    from fashion_pipeline.launching import opened_instance
    from fashion_pipeline.resources.liveness import bury_dead_runs
    from fashion_pipeline.store.store import Store

    with _errors():
        _require_port(port)
        store = Store(read_settings().data)
        enter(read_settings())
        with opened_instance(store) as instance:
            bury_dead_runs(instance, store)
    out.print(f"Dagster UI: http://127.0.0.1:{port}   (Ctrl-C stops it; runs go on)")
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(TEMPLATES / "workspace.yaml"), "-h", "127.0.0.1"]
    os.execv(sys.executable, [*command, "-p", str(port), "--log-level", "warning"])


def _require_port(port: int) -> None:
    """Raise ValueError for a port that another program listens on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(f"port {port} cannot be used ({error.strerror}): choose another with --port") from None


def _warn(text: str) -> None:
    err.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True)


@contextmanager
def _errors() -> Iterator[None]:
    """Errors that a user can mend are one message and exit code 1."""
    from fashion_pipeline.core.catalog.listing import CatalogError
    from fashion_pipeline.core.features.attributes import VocabularyError
    from fashion_pipeline.stages.models import ModelError
    from fashion_pipeline.store.files import StorageError

    try:
        yield
    except (api.RunError, CatalogError, ModelError, StorageError, SettingsError, VocabularyError, ValueError) as error:
        err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        mend = "name another one, or set FASHION_PIPELINE_DATA to a folder that can be written and has room"
        err.print(f"[red]error:[/] {escape(where)}{escape(error.strerror or str(error))}: {mend}", soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        err.print("cancelled; what was computed is kept, and the next run goes on from there")
        raise typer.Exit(130) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("duckdb", "_duckdb"):
            raise
        err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from error


@contextmanager
def _progress(asked: str) -> Iterator[api.Follow]:
    """A line with the step that is running, and a line above it for each that ended or said something.

    Why the style that was asked for failed is the command's own last word, so here only the step is named.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def follow(style: str, event: "Event") -> None:
            if event.kind == "started":
                progress.update(task, description=f"{style}: {event.step}")
            elif event.kind == "message":
                progress.console.print(f"  [dim]{escape(event.text)}[/]", soft_wrap=True)
            elif event.kind == "check":
                progress.console.print(f"  [yellow]check: {escape(event.text)}[/]")
            elif event.kind == "failed":
                reason = "" if style == asked else escape(event.text)
                progress.console.print(f"[red]✗[/] {style}: {event.step} {reason}".rstrip(), soft_wrap=True)
            else:
                progress.console.print(
                    f"[green]✓[/] {style}: {event.step} {'' if event.kind == 'finished' else event.kind}"
                )

        yield follow


def _config(
    steps: int | None,
    budget: int | None,
    products: int | None,
    knobs: list[str],
    prompts: list[str],
    rounds: int | None,
) -> dict[str, Any]:
    """Step → its configuration, from the options of `run`."""
    training = dict(_knob(text) for text in knobs) | ({"steps": steps} if steps else {})
    search = {"budget": budget, "held_out_products": products}
    config = {
        "prompt_candidates": {name: value for name, value in (("prompts", prompts), ("rounds", rounds)) if value},
        "generated_samples": {name: value for name, value in search.items() if value},
        "lora_weights": training,
        "evaluation_report": {"products": products} if products else {},
    }
    return {op: values for op, values in config.items() if values}


def _knob(text: str) -> tuple[str, Any]:
    """`rank=8` → a name and a number, true or false, a list, or a text."""
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError(f"--set {text!r} has no value: write it as name=value, for example rank=8")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value.strip()


def _show_report(style: str) -> None:
    found = api.report(style)
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
    out.print(_table(rows))
    out.print(f"best prompt: {found['optimized_prompt']}  ({found['strategy']})", markup=False)
    if on_prompt := found.get("prompt_verdict"):
        out.print(f"does it help: {on_prompt['verdict']}. {on_prompt['reason']}", markup=False)
    if found["verdict"]:
        out.print(f"verdict: {found['verdict']}. {found['reason']}", markup=False)
    out.print(f"report: {api.report_page(style)}", markup=False, soft_wrap=True)
    out.print("Dagster UI: fashion-pipeline ui, then http://127.0.0.1:3000")


def _table(rows: list[dict[str, Any]], columns: Iterable[str] = ()) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0] if rows else columns:
        table.add_column(escape(str(name)), overflow="fold")
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    return table


def _cell(value: object) -> str:
    """Text for a terminal: bytes and long lists by their size."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, list) and len(value) > SHOWN_ITEMS:
        return f"({len(value)} values)"
    return str(value)


if __name__ == "__main__":
    app()
