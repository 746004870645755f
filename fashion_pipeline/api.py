"""What the command and a notebook call: optimise prompts, fine-tune, compare; generate, report, ask.

```python
from fashion_pipeline import api

api.optimize_prompts("coat", source="data/samples")
api.finetune("coat")
print(api.compare("coat")["verdict"])
```
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fashion_pipeline.core.catalog.listing import (
    CatalogError,
    SourceSpec,
    first_reasons,
    listing_state,
    style_slug,
)
from fashion_pipeline.core.rows import Split
from fashion_pipeline.settings import enter, read_settings

if TYPE_CHECKING:
    import pyarrow as pa

    from fashion_pipeline.launching import Ended, Event, Launcher
    from fashion_pipeline.stages.models import Models
    from fashion_pipeline.store.pruning import Leftover
    from fashion_pipeline.store.records import Record
    from fashion_pipeline.store.store import Store

Mode = Literal["prompt", "finetune", "full"]
JOBS: dict[Mode, str] = {"prompt": "prompt_optimization", "finetune": "finetuning", "full": "full_pipeline"}

_PROMPT_OPS = {"prompt_candidates", "generated_samples"}
_FINETUNE_OPS = {"curated_subset", "lora_weights", "evaluation_report"}
OPS: dict[Mode, set[str]] = {
    "prompt": _PROMPT_OPS,
    "finetune": _FINETUNE_OPS,
    "full": _PROMPT_OPS | _FINETUNE_OPS,
}
"""The steps of each mode that can be configured."""

Config = Mapping[str, Mapping[str, Any]]
"""Step → its configuration, for example `{"lora_weights": {"steps": 300}}`."""

SHOWN_REJECTS = 10
"""Files of no style that are named."""

Follow = Callable[[str, "Event"], None]
"""Called with the style and the event of its run."""


Tell = Callable[[str], None]
"""Called with a message for people."""


class RunError(RuntimeError):
    """A run did not end well; the message says which style and why."""


@dataclass(frozen=True)
class Check:
    """One line of the doctor's findings."""

    name: str
    ok: bool
    found: str
    mend: str = ""


def run(
    style: str,
    mode: Mode = "full",
    source: str | Path | SourceSpec | None = None,
    config: Config | None = None,
    follow: Follow | None = None,
    *,
    forget: bool = False,
) -> str:
    """Take in the photos of a source, then run a job for one style; returns the run's id.

    The other styles of the source are described first where their photos are new, because anchored similarity and some
    strategies need them; one that fails is reported and left out. `config` is remembered for the style, and later runs,
    those of the schedule and the sensor too, use it; `forget` goes back to the defaults first. Raises RunError,
    CatalogError, StorageError, or ValueError for a configuration that cannot be.
    """
    from fashion_pipeline.launching import Event, launcher

    if mode not in JOBS:
        raise ValueError(f"mode {mode!r} is not known: use one of {', '.join(JOBS)}")
    store = _store()
    enter(read_settings())
    style = style_slug(style)
    report = follow or _print_event
    listed = _take_in(store, style, source, lambda text: report(style, Event("message", "", text)))
    chosen = _choose(store, style, config or {}, forget)
    ops = {op: {"config": dict(values)} for op, values in chosen.items() if op in OPS[mode]}
    with launcher(store) as launch:
        launch.instance.add_dynamic_partitions("styles", list(listed))
        for other, state in listed.items():
            if other != style and not _is_described(store, other, state):
                _prepare(launch, store, other, state, report)
        ended = launch.launch(JOBS[mode], style, {"ops": ops}, _tags(), lambda event: report(style, event))
    if not ended.success:
        raise RunError(
            f"{style}: " + ("; ".join(ended.errors) or f"run {ended.run_id} was cancelled or its process died")
        )
    store.sources.mark(style, listed[style], ran=True)
    return ended.run_id


def optimize_prompts(
    style: str,
    source: str | Path | None = None,
    budget: int | None = None,
    prompts: Sequence[str] = (),
    rounds: int | None = None,
) -> dict[str, Any]:
    """Find the prompt that comes closest to the style, within a budget of images; returns the prompt report.

    `prompts` are your own, which compete as they are. With `rounds` a call goes one round further, up to that number.
    """
    written: dict[str, Any] = {"prompts": list(prompts)} if prompts else {}
    written |= {"rounds": rounds} if rounds else {}
    config = {"prompt_candidates": written, "generated_samples": {"budget": budget} if budget else {}}
    run(style, "prompt", source, {op: values for op, values in config.items() if values})
    return _latest_report("prompt_report", style)


def finetune(style: str, source: str | Path | None = None, **training: Any) -> dict[str, Any]:
    """Train, evaluate and publish if better; `training` are knobs of `core.training.recipe.Recipe`, or `control`.

    Returns the evaluation report.
    """
    run(style, "finetune", source, {"lora_weights": training} if training else {})
    return _latest_report("evaluation", style)


def compare(style: str) -> dict[str, Any]:
    """The stored comparison of original and specialised model, or the prompt report where nothing was trained yet."""
    from fashion_pipeline.stages.reports import REPORT

    store, style = _store(), style_slug(style)
    evaluation = store.records.newest("evaluation", style)
    return evaluation.json(REPORT) if evaluation else report(style)


def report(style: str) -> dict[str, Any]:
    """The newest report of a style as JSON. Raises StorageError for a style that never ran."""
    from fashion_pipeline.stages.reports import REPORT

    return _newest_report(style).json(REPORT)


def report_page(style: str) -> Path:
    """The HTML page of a style's newest report. Raises StorageError for a style that never ran."""
    from fashion_pipeline.stages.reports import PAGE

    return _newest_report(style).path(PAGE)


def generate(style: str, prompt: str, n: int, out: str | Path, seed: int = 0, tell: Tell | None = None) -> list[Path]:
    """Draw n images with the style's published model into a folder; seeds count up from `seed`.

    `tell`, or the standard error stream, hears of words that the text encoder cannot know. Raises StorageError where
    nothing was published, ValueError for a prompt longer than the text encoder reads, OSError where the folder cannot
    be made.
    """
    from fashion_pipeline.core.prompts.requests import Request
    from fashion_pipeline.store.files import StorageError

    style = style_slug(style)
    champion = _store().versions.champion(style)
    if champion is None:
        raise StorageError(f"no model of style {style!r} is published: {_why_not_published(style)}")
    out, models = Path(out), _models()
    g = models.profile.generation
    requests = [Request(prompt, "", seed + k, g.steps, g.guidance, g.image_size, g.image_size) for k in range(n)]
    out.mkdir(parents=True, exist_ok=True)
    if unknown := models.unknown_words(prompt, champion):
        (tell or _warn)(
            f"the text encoder does not know {', '.join(unknown)}, so the images hardly depend on it: say it in English"
        )
    paths: dict[int, Path] = {}
    with models.generator(champion) as generator:
        for drawn in generator.draw(requests):
            paths[drawn.index] = out / f"{style}-{requests[drawn.index].seed}.png"
            drawn.image.save(paths[drawn.index])
    return [paths[index] for index in sorted(paths)]


def move(source: str | Path | SourceSpec) -> list[str]:
    """Let all styles of a source come from there, wherever their photos came from before; returns the styles.

    Photos that are the same keep their product group and split, whatever they are called now. Raises CatalogError.
    """
    from fashion_pipeline.core.catalog.sources import read_source
    from fashion_pipeline.stages.intake import take_in

    spec = _spec(source)
    return take_in(_store(), spec, read_source(spec), move=True)


def remove(style: str) -> None:
    """Forget a style: its source, choices and results; its photos and published versions stay.

    Raises StorageError for an unknown style, LockedError while it is being run.
    """
    from fashion_pipeline.launching import opened_instance

    store, style = _store(), style_slug(style)
    enter(read_settings())
    store.forget(style)
    with opened_instance(store) as instance:
        instance.delete_dynamic_partition("styles", style)


def styles(tell: Tell | None = None) -> list[dict[str, Any]]:
    """Every known style with its photos per split, its rejects, best prompt, verdict and published version.

    What is damaged is None, and `tell` hears of it, or the standard error stream.
    """
    store = _store()
    return [_style_row(store, style, tell or _warn) for style in store.sources.styles()]


def sql(query: str, tell: Tell | None = None) -> "pa.Table":
    """A DuckDB query over all tables, each with the columns `style` and `record`. Raises duckdb.Error.

    Damaged files are left out, and `tell` hears of each, or the standard error stream.

    `<table>_history` has the rows of all runs, `<table>` those of each style's newest. Nothing outside the data root
    can be read, and nothing written.
    """
    return _store().sql(query, tell or _warn)


def prune(*, dry_run: bool = False) -> "list[Leftover]":
    """Remove superseded trainings, models, records, images and caches; returns what was (or would be) removed.

    The newest of everything, what it was made from, and all published versions stay.
    """
    from fashion_pipeline.store.pruning import leftovers, remove_leftovers

    store = _store()
    found = leftovers(store)
    if not dry_run:
        remove_leftovers(store, found)
    return found


def doctor(profile: str | None = None) -> list[Check]:
    """What is there and what is missing: versions, storage, device, models. Nothing is downloaded."""
    from fashion_pipeline import diagnosis

    settings = read_settings()
    return [Check(*finding) for finding in diagnosis.examine(settings, profile or settings.profile)]


def _store() -> "Store":
    from fashion_pipeline.store.store import Store

    return Store(read_settings().data)


def _models() -> "Models":
    from fashion_pipeline.stages.models import Models

    return Models.of(read_settings())


def _choose(store: "Store", style: str, config: Config, forget: bool) -> Config:
    """The configuration of a style's runs, with what is given now; it is checked, then remembered."""
    _require_fields(config)
    known = {} if forget else store.sources.config(style)
    chosen = known | {op: {**known.get(op, {}), **values} for op, values in config.items()}
    training = {name: value for name, value in chosen.get("lora_weights", {}).items() if name != "control"}
    _models().profile.training.changed(training)
    if forget or chosen != known:
        store.sources.choose(style, chosen)
    return chosen


def _require_fields(config: Config) -> None:
    """Raise ValueError that names a step or field which is not known."""
    from fashion_pipeline.defs.jobs import step_fields

    fields = step_fields()
    for op, values in config.items():
        if op not in fields:
            raise ValueError(f"step {op!r} cannot be configured: choose among {', '.join(sorted(fields))}")
        if unknown := sorted(values.keys() - fields[op]):
            raise ValueError(f"{unknown[0]} is not known: choose among {', '.join(sorted(fields[op]))}")


def _why_not_published(style: str) -> str:
    from fashion_pipeline.stages.reports import REPORT

    evaluation = _store().records.newest("evaluation", style)
    if evaluation is None:
        return f"run --mode full --style {style} first"
    report = evaluation.json(REPORT)
    return f"the verdict on its newest training is {report['verdict']!r} ({report['reason'].rstrip('.')})"


def _spec(source: str | Path | SourceSpec) -> SourceSpec:
    """A source as it is kept: the same path however it was spelt."""
    spec = source if isinstance(source, SourceSpec) else SourceSpec(str(source))
    return replace(spec, path=str(Path(spec.path).expanduser().resolve()))


def _newest_report(style: str) -> "Record":
    from fashion_pipeline.stages.reports import newest_report
    from fashion_pipeline.store.files import StorageError

    store, style = _store(), style_slug(style)
    found = newest_report(store, style)
    if found is None:
        known = ", ".join(store.sources.styles()) or "none yet"
        raise StorageError(f"style {style!r} has no report (known styles: {known}): run it first")
    return found


def _latest_report(kind: str, style: str) -> dict[str, Any]:
    from fashion_pipeline.stages.reports import REPORT

    return _store().records.latest(kind, style_slug(style)).json(REPORT)


def _take_in(store: "Store", style: str, source: str | Path | SourceSpec | None, tell: Tell) -> dict[str, str]:
    """Register the styles of the source that is given, or of the style's own; returns style → state of its photos."""
    from fashion_pipeline.core.catalog.sources import read_source
    from fashion_pipeline.stages.intake import take_in

    spec = _spec(source) if source is not None else store.sources.source(style)
    listing = read_source(spec)
    if homeless := [reject for reject in listing.rejects if not reject.style]:
        tell("of no style" + first_reasons(homeless, SHOWN_REJECTS))
    if style not in listing.styles():
        reasons = "".join(f"; {r.path}: {r.reason}" for r in listing.rejects[:3])
        known = ", ".join(listing.styles()) or "none"
        raise CatalogError(f"{spec.path} has no photos of style {style!r}; its styles: {known}{reasons}")
    take_in(store, spec, listing)
    return {name: listing_state(listing.of(name).entries) for name in listing.styles()}


def _is_described(store: "Store", style: str, state: str) -> bool:
    """Whether the photos of a style are described as they lie there now, and the description is whole."""
    current = store.sources.prepared(style) == state
    return current and all(store.records.intact(kind, style) for kind in ("catalog", "features"))


def _prepare(launch: "Launcher", store: "Store", style: str, state: str, report: Follow) -> None:
    """Describe the photos of a neighbouring style; its failure does not stop the style that was asked for."""
    from fashion_pipeline.launching import Event
    from fashion_pipeline.store.locks import LockedError

    try:
        ended: Ended = launch.launch("catalog", style, {}, _tags(), lambda event: report(style, event))
    except LockedError as error:
        report(style, Event("failed", "", str(error)))
        return
    if ended.success:
        store.sources.mark(style, state, ran=False)


def _tags() -> dict[str, str]:
    return {"fashion_pipeline/profile": Path(read_settings().profile).stem, "started_from": "the command line"}


def _print_event(style: str, event: "Event") -> None:
    if event.kind in ("started", "failed", "message"):
        print(f"{style}: {event.step} {event.text or event.kind}", file=sys.stderr)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _style_row(store: "Store", style: str, tell: Tell) -> dict[str, Any]:
    """What is known of a style; None where it is not there, or damaged."""

    def read(what: Callable[[], Any]) -> Any:
        from fashion_pipeline.store.files import StorageError

        try:
            return what()
        except StorageError as error:
            tell(str(error))
            return None

    row: dict[str, Any] = {"style": style}
    row |= read(lambda: _photo_counts(store, style)) or dict.fromkeys(
        ("photos", *(split.value for split in Split), "rejects")
    )
    row["best prompt"] = read(lambda: _reported(store, "prompt_report", style, "optimized_prompt"))
    row["verdict"] = read(lambda: _reported(store, "evaluation", style, "verdict"))
    champion = read(lambda: store.versions.champion(style))
    row["published"] = champion.name if champion else None
    return row


def _photo_counts(store: "Store", style: str) -> dict[str, int]:
    catalog = store.records.newest("catalog", style)
    splits: Sequence[str] = catalog.table("images")["split"].to_pylist() if catalog else []
    counted = {split.value: splits.count(split) for split in Split}
    return {"photos": len(splits), **counted, "rejects": catalog.table("rejects").num_rows if catalog else 0}


def _reported(store: "Store", kind: str, style: str, field: str) -> Any:
    from fashion_pipeline.stages.reports import REPORT

    found = store.records.newest(kind, style)
    return found.json(REPORT)[field] if found else None
