"""The fashion-pipeline command: a thin face of `api`."""

import json
import socket
import webbrowser
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from fashion_pipeline import api
from fashion_pipeline.api.running import source_spec
from fashion_pipeline.cli.console import (
    Style,
    cell,
    err,
    errors,
    out,
    print_json,
    progress_line,
    show,
    show_or_say,
    show_outcome,
    show_scores,
    warn,
    write_lines,
)
from fashion_pipeline.core.catalog.listing import style_slug
from fashion_pipeline.settings import enter, read_settings

app = typer.Typer(
    pretty_exceptions_show_locals=False,  # they may hold secrets
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Finds the prompts and trains the weights that bring Stable Diffusion to your styles, and proves it.\n\n"
    "Start with `fashion-pipeline run --style coat --source data/samples`, "
    "then `fashion-pipeline report --style coat --open` and `fashion-pipeline ui`.",
)


SHOWN_ROWS = 1000
"""Rows of an answer that a terminal shows."""

AT_A_TIME = 8192
"""Rows of an answer that are turned into text together."""


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
    preset: Annotated[
        str | None,
        typer.Option(help="What the run may cost: quick, standard, thorough, or another preset of the profile."),
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
    approval: Annotated[
        Literal["none", "required"] | None,
        typer.Option(help="**required**: a better model waits until somebody says `fashion-pipeline publish`."),
    ] = None,
    publish_when: Annotated[
        Literal["words", "original"] | None,
        typer.Option(help="Publish what is better than the best **words**, the default, or than the **original**."),
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Forget what was chosen for this style before, except for approval.")
    ] = False,
) -> None:
    """Run the pipeline for one style. What exists is not computed again; Ctrl-C cancels the run.

    Steps, budget, products, knobs and approval are remembered for the style, also for runs of the schedule and the
    sensor.
    """
    with errors():
        given = _config(steps, budget, products, knobs or [], prompts or [], rounds, approval, publish_when)
        with progress_line(style_slug(style)) as follow:
            api.run(style, mode.value, source, given, follow, preset=preset, forget=defaults)
        show_outcome(style)


@app.command()
def generate(
    style: Style,
    prompt: Annotated[str | None, typer.Option(help="What to draw; the recommended prompt without it.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many images.")] = 4,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the PNG files.")] = Path("generated"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first image; the others count up.")] = 0,
    negative: Annotated[str | None, typer.Option("--negative-prompt", help="What not to draw.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0.0, help="How closely the words are followed.")] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Instead of the one in use; also one that was not published.")
    ] = None,
    strength: Annotated[
        float, typer.Option(help="Share of what training changed: 0.5 is half way from the original, above 1 beyond.")
    ] = 1.0,
) -> None:
    """Draw images with a style's model. Files that are there are kept; each PNG tells its prompt and seed."""
    with errors():
        drawing = {"negative_prompt": negative, "guidance": guidance, "version": version, "strength": strength}
        for path in api.generate(style, prompt, n, folder, seed, warn, **drawing):  # type: ignore[arg-type]
            out.print(str(path), soft_wrap=True)


@app.command("export-dataset")
def export_dataset(
    style: Style,
    folder: Annotated[Path, typer.Option("--out", help="A new folder.")],
    trainer: Annotated[str, typer.Option("--to", help="kohya, diffusers or imagefolder.")] = "imagefolder",
) -> None:
    """Write the curated images and captions for another trainer, with its configuration."""
    with errors():
        count = api.export_dataset(style, trainer, folder, warn)
    out.print(f"{count} images with captions in {escape(str(folder))}", soft_wrap=True)


@app.command()
def report(
    style: Annotated[
        str | None, typer.Option("--style", "-s", help="The style; without one, the page of all styles.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    opened: Annotated[bool, typer.Option("--open", help="Open the HTML page in a browser.")] = False,
    lang: Annotated[str, typer.Option(help="Language of the page: en or zh-TW.")] = "en",
) -> None:
    """What prompts and training gained for a style, and the verdict; or the page of all styles."""
    with errors():
        if as_json:
            if style is None:
                raise ValueError("--json needs a style: name it with --style")
            print_json(api.report(style))
            return
        page = api.report_page(style, lang)
        if opened:
            webbrowser.open(page.as_uri())
        elif style:
            show_scores(api.report(style), page)
        else:
            out.print(f"styles: {page}", markup=False, soft_wrap=True)


@app.command()
def prompts(
    style: Style,
    n: Annotated[int, typer.Option("-n", min=1, help="How many prompts.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print the best one, and all of them, as JSON.")] = False,
) -> None:
    """The best prompts of a style's newest search, to copy, each with its similarity on search photos."""
    with errors():
        rows = api.prompts(style, n)
        if as_json:
            best = rows[0]
            summary = {"optimized_prompt": best["prompt"], "strategy": best["strategy"]}
            print_json(summary | {"similarity_score": best["mean"], "prompts": rows})
            return
        show(_told_prompts(rows))


def _told_prompts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows for people: intervals as one column, and no column that all of them leave empty."""
    told = [
        {
            "prompt": row["prompt"],
            "without": row["negative_prompt"],
            "guidance": row["guidance"],
            "strategy": row["strategy"],
            "similarity": f"{row['mean']:.3f}",
            "95 %": "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}",
            "images": row["images"],
        }
        for row in rows
    ]
    used = [name for name in told[0] if any(row[name] not in ("", None) for row in told)]
    return [{name: row[name] for name in used} for row in told]


@app.command()
def evaluate(
    style: Style,
    weights: Annotated[Path, typer.Option(help="A LoRA in diffusers' or kohya's format, as safetensors.")],
    products: Annotated[int, typer.Option(min=1, help="Most held-out products of dev, and of test, to draw.")] = 128,
    opened: Annotated[bool, typer.Option("--open", help="Open the HTML page in a browser.")] = False,
) -> None:
    """Judge a LoRA that was trained elsewhere, by the same photos, seeds and rules; it is not published."""
    with errors():
        report, page = api.evaluate(style, weights, products, lambda text: err.print(f"[dim]{escape(text)}[/]"))
        show_scores(report, page)
        if opened:
            webbrowser.open(page.as_uri())


@app.command()
def style(
    name: Annotated[str, typer.Argument(help="The style, as in `fashion-pipeline styles`.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Choose for all its runs, as `lora_weights.steps=400`; may be repeated."),
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option("--unset", help="Back to the default, as `lora_weights.steps`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """How a style stands and what was chosen for its runs, and the place to change that."""
    with errors():
        if changes or unset:
            config: dict[str, dict[str, Any]] = {}
            for text in changes or []:
                path, value = _knob(text)
                step, field = _step_and_field(path)
                config.setdefault(step, {})[field] = value
            api.choose(name, config, [_step_and_field(path) for path in unset or []])
        about = api.style(name, warn)
        if as_json:
            print_json(about)
            return
        chosen = about.pop("chosen")
        rows = [{"chosen": f"{step}.{field}", "value": v} for step in chosen for field, v in chosen[step].items()]
        for name_of_row, value in about.items():
            if value is not None:
                out.print(f"{name_of_row + ':':19} {value}", markup=False, soft_wrap=True)
        out.print()
        show_or_say(rows, "nothing was chosen for it: its runs use the defaults")


def _step_and_field(path: str) -> tuple[str, str]:
    step, dot, field = path.partition(".")
    if not dot:
        raise ValueError(f"{path!r} names no field: write it as step.field, for example lora_weights.steps")
    return step, field


@app.command()
def styles() -> None:
    """All known styles with their photos, verdict and published version."""
    with errors():
        rows = api.styles(warn)
    if rows:
        show(rows)
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
    with errors():
        answer = api.sql(query, warn)
    columns, count = answer.column_names, answer.num_rows
    if out.is_terminal:
        show(answer.slice(0, SHOWN_ROWS).to_pylist(), columns)
        if count > SHOWN_ROWS:
            err.print(f"… and {count - SHOWN_ROWS:,} rows more; in a pipe or a file there are all: … | less")
    else:
        write_lines([columns])
        for batch in answer.to_batches(max_chunksize=AT_A_TIME):
            write_lines(zip(*(map(cell, column.to_pylist()) for column in batch.columns), strict=True))
    if columns and not count:
        err.print("no rows")


@app.command()
def move(
    source: Annotated[str, typer.Argument(help="The folder, manifest or IDX files where the photos lie now.")],
) -> None:
    """Let all styles of a source come from there, wherever their photos came from before."""
    with errors():
        moved = api.move(source)
    out.print(f"{', '.join(moved)}: photos are now taken from {source_spec(source).path}", soft_wrap=True)


@app.command()
def remove(
    style: Style,
    sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget a style: its source, choices and results. Its photos and published versions stay."""
    with errors():
        about = api.style(style)
    if not sure:
        question = (
            f"{about['style']!r} with all its results? Its photos stay in {about['source']}; only a run brings it back."
        )
        typer.confirm(f"Forget {question}", abort=True)
    with errors():
        api.remove(style)
    out.print(f"{escape(style)} is forgotten; fashion-pipeline clean removes its images")


@app.command()
def doctor(
    profile: Annotated[str | None, typer.Option(help="Examine this profile instead of the current one.")] = None,
) -> None:
    """Check versions, storage, device and models, and say how to mend what is missing."""
    with errors():
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
    from fashion_pipeline.running.launching import opened_instance
    from fashion_pipeline.running.liveness import bury_dead_runs
    from fashion_pipeline.store.store import Store
    from fashion_pipeline.web.services import run_services

    with errors():
        _require_port(port)
        store = Store(read_settings().data)
        enter(read_settings())
        with opened_instance(store) as instance:
            bury_dead_runs(instance, store)
            out.print(f"Dagster UI: http://127.0.0.1:{port}   (Ctrl-C stops it; runs go on)")
            run_services(instance, port)


def _require_port(port: int) -> None:
    """Raise ValueError for a port that another program listens on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(f"port {port} cannot be used ({error.strerror}): choose another with --port") from None


PUBLISH_WHEN = {"words": "better than the best words", "original": "better than the original"}


def _config(
    steps: int | None,
    budget: int | None,
    products: int | None,
    knobs: list[str],
    prompts: list[str],
    rounds: int | None,
    approval: str | None = None,
    publish_when: str | None = None,
) -> dict[str, Any]:
    """Step → its configuration, from the options of `run`."""
    training = dict(_knob(text) for text in knobs) | ({"steps": steps} if steps else {})
    search = {"budget": budget, "held_out_products": products}
    config = {
        "prompt_candidates": {name: value for name, value in (("prompts", prompts), ("rounds", rounds)) if value},
        "generated_samples": {name: value for name, value in search.items() if value},
        "lora_weights": training,
        "evaluation_report": {
            **({"products": products} if products else {}),
            **({"publish_when": PUBLISH_WHEN[publish_when]} if publish_when else {}),
        },
        "published_model": {"approval": approval} if approval else {},
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
