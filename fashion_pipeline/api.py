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

from fashion_pipeline.core.listing import CatalogError, SourceSpec, listing_state, style_slug
from fashion_pipeline.settings import enter, read_settings

if TYPE_CHECKING:
    import pyarrow as pa

    from fashion_pipeline.launching import Ended, Event, Launcher
    from fashion_pipeline.resources.models import Models
    from fashion_pipeline.resources.storage import Storage

Mode = Literal["prompt", "finetune", "full"]
JOBS: dict[Mode, str] = {"prompt": "prompt_optimization", "finetune": "finetuning", "full": "full_pipeline"}

REPORTS = ("prompt_report.json", "evaluation_report.json")

Follow = Callable[[str, "Event"], None]
"""Called with the style and the event of its run."""


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
    source: str | SourceSpec | None = None,
    run_config: Mapping[str, Any] | None = None,
    follow: Follow | None = None,
) -> str:
    """Take in the photos of a source, then run a job for one style; returns the run's id.

    The other styles of the source are described first where their photos are new, because distinctive attributes and
    anchored similarity need them; one that fails is reported and left out. `run_config` is Dagster's, for example
    `{"ops": {"lora_weights": {"config": {"steps": 300}}}}`. Raises RunError, CatalogError or StorageError.
    """
    from fashion_pipeline.launching import launcher

    enter(read_settings())
    storage = _storage()
    style = style_slug(style)
    listed = _take_in(storage, style, source)
    report = follow or _print_event
    with launcher() as launch:
        launch.instance.add_dynamic_partitions("styles", list(listed))
        for other, state in listed.items():
            if other != style and storage.prepared_state(other) != state:
                _prepare(launch, storage, other, state, report)
        ended = launch.launch(JOBS[mode], style, run_config or {}, _tags(), lambda event: report(style, event))
    if not ended.success:
        raise RunError(
            f"{style}: " + ("; ".join(ended.errors) or f"run {ended.run_id} was cancelled or its process died")
        )
    storage.write_prepared_state(style, listed[style])
    return ended.run_id


def optimize_prompts(style: str, source: str | None = None, budget: int | None = None) -> dict[str, Any]:
    """Find the prompt that comes closest to the style, within a budget of images; returns the prompt report."""
    config = {"ops": {"generated_samples": {"config": {"budget": budget}}}} if budget else {}
    run(style, "prompt", source, config)
    return _storage().read_report(style_slug(style), "prompt_report.json")


def finetune(style: str, source: str | None = None, **training: Any) -> dict[str, Any]:
    """Train, evaluate and publish if better; `training` are fields of TrainingConfig. Returns the evaluation report."""
    run(style, "finetune", source, {"ops": {"lora_weights": {"config": training}}} if training else {})
    return compare(style)


def compare(style: str) -> dict[str, Any]:
    """The stored comparison of original and specialised model, or the prompt report where nothing was trained yet."""
    return report(style)


def report(style: str) -> dict[str, Any]:
    """The newest report of a style as JSON. Raises StorageError for a style that never ran."""
    storage, style = _storage(), style_slug(style)
    written = [path for name in REPORTS if (path := storage.report_path(style, name)).exists()]
    newest = max(written, key=lambda path: path.stat().st_mtime_ns, default=storage.report_path(style, REPORTS[0]))
    return storage.read_report(style, newest.name)


def report_page(style: str) -> Path:
    """The HTML page of a style. Raises StorageError for a style that never ran."""
    report(style)
    return _storage().report_path(style_slug(style), "report.html")


def generate(style: str, prompt: str, n: int, out: Path, seed: int = 0) -> list[Path]:
    """Draw n images with the style's published model into a folder; seeds count up from `seed`.

    Raises StorageError where nothing was published, ValueError for a prompt longer than the text encoder reads.
    """
    from fashion_pipeline.core.requests import Request
    from fashion_pipeline.resources.storage import StorageError

    style = style_slug(style)
    champion = _storage().champion(style)
    if champion is None:
        raise StorageError(f"no model of style {style!r} is published: run --mode full --style {style} first")
    models = _models()
    g = models.read().generation
    requests = [Request(prompt, "", seed + k, g.steps, g.guidance, g.image_size, g.image_size) for k in range(n)]
    out.mkdir(parents=True, exist_ok=True)
    paths: dict[int, Path] = {}
    with models.generator(champion) as generator:
        for index, image in generator.draw(requests):
            paths[index] = out / f"{style}-{requests[index].seed}.png"
            image.save(paths[index])
    return [paths[index] for index in sorted(paths)]


def styles() -> list[dict[str, Any]]:
    """Every known style with its photos per split, its rejects, verdict and published version."""
    storage = _storage()
    return [_style_row(storage, style) for style in storage.registered_styles()]


def sql(query: str) -> "pa.Table":
    """A DuckDB query over all tables, each with a column `style`. Raises duckdb.Error."""
    return _storage().sql(query)


def doctor(profile: str | None = None) -> list[Check]:
    """What is there and what is missing: versions, storage, device, models. Nothing is downloaded."""
    from fashion_pipeline import diagnosis

    settings = read_settings()
    return [Check(*finding) for finding in diagnosis.examine(settings, profile or settings.profile)]


def _storage() -> "Storage":
    from fashion_pipeline.resources.storage import Storage

    return Storage(root=str(read_settings().data))


def _models() -> "Models":
    from fashion_pipeline.resources.gpu import Gpu
    from fashion_pipeline.resources.models import Models

    settings = read_settings()
    return Models(profile=settings.profile, gpu=Gpu(device=settings.device, precision=settings.precision))


def _take_in(storage: "Storage", style: str, source: str | SourceSpec | None) -> dict[str, str]:
    """Register the styles of the source that is given, or of the style's own; returns style → state of its photos."""
    from fashion_pipeline.core.sources import read_source
    from fashion_pipeline.defs.intake import take_in

    given = SourceSpec(source) if isinstance(source, str) else source
    spec = replace(given, path=str(Path(given.path).expanduser().absolute())) if given else storage.source(style)
    listing = read_source(spec)
    if style not in listing.styles():
        reasons = "".join(f"; {r.path}: {r.reason}" for r in listing.rejects[:3])
        known = ", ".join(listing.styles()) or "none"
        raise CatalogError(f"{spec.path} has no photos of style {style!r}; its styles: {known}{reasons}")
    take_in(storage, spec, listing)
    return {name: listing_state(listing.of(name).entries) for name in listing.styles()}


def _prepare(launch: "Launcher", storage: "Storage", style: str, state: str, report: Follow) -> None:
    """Describe the photos of a neighbouring style; its failure does not stop the style that was asked for."""
    ended: Ended = launch.launch("catalog", style, {}, _tags(), lambda event: report(style, event))
    if ended.success:
        storage.write_prepared_state(style, state)


def _tags() -> dict[str, str]:
    return {"fashion_pipeline/profile": Path(read_settings().profile).stem}


def _print_event(style: str, event: "Event") -> None:
    if event.kind in ("started", "failed", "message"):
        print(f"{style}: {event.step} {event.text or event.kind}", file=sys.stderr)


def _style_row(storage: "Storage", style: str) -> dict[str, Any]:
    splits: Sequence[str] = storage.read("images", style)["split"].to_pylist()
    row: dict[str, Any] = {"style": style, "photos": len(splits)}
    row |= {split: splits.count(split) for split in ("search", "dev", "test")}
    row["rejects"] = storage.read("rejects", style).num_rows
    evaluated = storage.report_path(style, "evaluation_report.json").exists()
    row["verdict"] = storage.read_report(style, "evaluation_report.json")["verdict"] if evaluated else None
    champion = storage.champion(style)
    row["published"] = champion.name if champion else None
    return row
