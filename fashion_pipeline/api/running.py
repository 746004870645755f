"""Running jobs: the prompt search, fine-tuning, or both, for one style."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fashion_pipeline.api.common import Tell, open_models, open_store
from fashion_pipeline.core.catalog.listing import CatalogError, SourceSpec, first_reasons, style_slug
from fashion_pipeline.core.names import REPORT
from fashion_pipeline.intake.objects import is_url
from fashion_pipeline.intake.sources import listing_state
from fashion_pipeline.settings import enter, read_settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from fashion_pipeline.running.launching import Event, Launcher
    from fashion_pipeline.store.store import Store

Mode = Literal["prompt", "finetune", "full"]
JOBS: dict[Mode, str] = {"prompt": "prompt_optimization", "finetune": "finetuning", "full": "full_pipeline"}

_PROMPT_OPS = {"prompt_candidates", "generated_samples"}
_FINETUNE_OPS = {"curated_subset", "lora_weights", "evaluation_report", "published_model"}
OPS: dict[Mode, set[str]] = {
    "prompt": _PROMPT_OPS,
    "finetune": _FINETUNE_OPS,
    "full": _PROMPT_OPS | _FINETUNE_OPS,
}
"""The steps of each mode that can be configured."""

Config = Mapping[str, Mapping[str, Any]]
"""Step → its configuration, for example `{"lora_weights": {"steps": 300}}`."""

STANDARD = "standard"
"""The preset of those who choose none."""

SHOWN_REJECTS = 10
"""Files of no style that are named."""

Follow = Callable[[str, "Event"], None]
"""Called with the style and the event of its run."""


class RunError(RuntimeError):
    """A run did not end well; the message says which style and why."""


def run(
    style: str,
    mode: Mode = "full",
    source: str | Path | SourceSpec | None = None,
    config: Config | None = None,
    follow: Follow | None = None,
    *,
    preset: str | None = None,
    forget: bool = False,
) -> str:
    """Take in the photos of a source, then run a job for one style; returns the run's id.

    The other styles of the source are described first where their photos are new, because anchored similarity and some
    strategies need them; one that fails is reported and left out. `config` is remembered for the style, and later runs,
    those of the schedule and the sensor too, use it. A `preset` of the profile stands in for the one before and changes
    what it names; `forget` goes back to the defaults first, except for approval, which only `config` takes away. Raises
    RunError, CatalogError, StorageError, or ValueError for a configuration that cannot be.
    """
    from fashion_pipeline.running.launching import Event, launcher

    if mode not in JOBS:
        raise ValueError(f"mode {mode!r} is not known: use one of {', '.join(JOBS)}")
    store = open_store()
    enter(read_settings())
    style = style_slug(style)
    report = follow or _print_event
    with ExitStack() as held:
        held.enter_context(store.locks.claiming(style, "a command that runs it"))
        store.sources.welcome(style)
        listed, photos = _take_in(store, style, source, lambda text: report(style, Event("message", "", text)))
        chosen = _choose(store, style, config or {}, preset, forget)
        ops = {op: {"config": dict(values)} for op, values in chosen.items() if op in OPS[mode]}
        launch = held.enter_context(launcher(store))
        launch.instance.add_dynamic_partitions("styles", list(listed))
        for message in _foretold(launch.instance, store, style, mode, chosen, photos):
            report(style, Event("message", "", message))
        for other, state in listed.items():
            if other != style and not _is_described(store, other, state):
                _prepare(launch, other, report)
        ended = launch.launch(JOBS[mode], style, {"ops": ops}, _tags(style), lambda event: report(style, event))
    if not ended.success:
        raise RunError(
            f"{style}: " + ("; ".join(ended.errors) or f"run {ended.run_id} was cancelled or its process died")
        )
    return ended.run_id


def choose(style: str, config: Config | None = None, unset: Sequence[tuple[str, str]] = ()) -> Config:
    """Change what was chosen for a style's runs, without running it; returns step → its configuration.

    `unset` are pairs of step and field that go back to the default. Raises ValueError for what cannot be configured,
    SettingsError for a step or field that is not known, StorageError for a style that nobody registered.
    """
    store, style = open_store(), style_slug(style)
    if missing := [f"{step}.{name}" for step, name in unset if name not in store.sources.config(style).get(step, {})]:
        raise ValueError(f"{missing[0]} was not chosen for {style!r}: there is nothing to take back")
    return _choose(store, style, config or {}, None, forget=False, unset=unset)


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


def _choose(
    store: "Store",
    style: str,
    config: Config,
    preset: str | None,
    forget: bool,
    unset: Sequence[tuple[str, str]] = (),
) -> Config:
    """The configuration of a style's runs, with what is given now; it is checked, then remembered."""
    from fashion_pipeline.defs.automation.jobs import require_fields

    require_fields(config)
    profile = open_models().profile
    if preset not in (None, STANDARD, *profile.presets):
        raise ValueError(f"preset {preset!r} is not known: choose among {', '.join((STANDARD, *profile.presets))}")

    def change(known: dict[str, Any]) -> Config:
        kept: Config = {step: known[step] for step in known if step == "published_model"} if forget else known
        if preset is not None:
            kept = _above(_without_presets(kept, profile.presets.values()), profile.presets.get(preset, {}))
        chosen = _above(_without(kept, unset), config)
        training = {name: value for name, value in chosen.get("lora_weights", {}).items() if name != "control"}
        profile.training.changed(training)
        return chosen

    return store.sources.choose(style, change)


def _without(config: Config, unset: Sequence[tuple[str, str]]) -> Config:
    left = {step: {n: v for n, v in values.items() if (step, n) not in unset} for step, values in config.items()}
    return {step: values for step, values in left.items() if values}


def _above(below: Config, config: Config) -> Config:
    """A configuration with the values of another one in place of its own."""
    return {step: {**below.get(step, {}), **config.get(step, {})} for step in {**below, **config}}


def _without_presets(config: Config, presets: Iterable[Config]) -> Config:
    """A configuration without the values that a preset gives: choosing another one takes them back."""
    given = [(step, name, value) for preset in presets for step in preset for name, value in preset[step].items()]
    left = {step: {n: v for n, v in values.items() if (step, n, v) not in given} for step, values in config.items()}
    return {step: values for step, values in left.items() if values}


def source_spec(source: str | Path | SourceSpec) -> SourceSpec:
    """A source as it is kept: the same path however it was spelt."""
    spec = source if isinstance(source, SourceSpec) else SourceSpec(str(source))
    return spec if is_url(spec.path) else replace(spec, path=str(Path(spec.path).expanduser().resolve()))


def _foretold(
    instance: "DagsterInstance", store: "Store", style: str, mode: Mode, chosen: Config, photos: int
) -> Iterator[str]:
    """Why a run cannot lead to a verdict, if so; what it costs at most, and how long that takes."""
    from fashion_pipeline.core.evaluation.foresight import too_few_photos, too_few_products
    from fashion_pipeline.core.progress import spoken
    from fashion_pipeline.defs.automation.jobs import defaults, steps_of
    from fashion_pipeline.running.operation import pace
    from fashion_pipeline.stages.standing.costs import cost_of

    models, usual = open_models(), defaults()
    products = {**usual["evaluation_report"], **chosen.get("evaluation_report", {})}["products"]
    if mode != "prompt" and (few := too_few_photos(photos)):
        yield f"{photos} photos: {few}"
    elif mode != "prompt" and (few := too_few_products(products)):
        usually = usual["evaluation_report"]["products"]
        yield f"{few}. It is remembered for the style, also for the schedule; --products {usually} takes it back"
    cost = cost_of(
        models,
        photos,
        search={**usual["generated_samples"], **chosen.get("generated_samples", {})} if mode != "finetune" else None,
        training={name: value for name, value in chosen.get("lora_weights", {}).items() if name != "control"}
        if mode != "prompt"
        else None,
        products=products,
        contestants=3 if store.versions.pointer(style).version else 2,
    )
    seconds = pace(instance, steps_of(JOBS[mode])).seconds(cost.images, cost.steps)
    time = (
        f"at most {spoken(seconds)} at the pace of the last run"
        if seconds
        else "how long that takes, the first run will show"
    )
    steps = f" and {cost.steps} steps to train" if cost.steps else ""
    yield (
        f"at most {cost.images} images to draw{steps}: {time}; {max(1, cost.bytes // 10**6)} MB of disk. "
        "What exists is not made again"
    )


def _take_in(
    store: "Store", style: str, source: str | Path | SourceSpec | None, tell: Tell
) -> tuple[dict[str, str], int]:
    """Register the styles of the source that is given, or of the style's own.

    Returns style → state of its photos, and how many there are of the style itself.
    """
    from fashion_pipeline.intake.sources import read_source
    from fashion_pipeline.stages.catalog.sources import take_in

    spec = source_spec(source) if source is not None else store.sources.source(style)
    listing = read_source(spec)
    if homeless := [reject for reject in listing.rejects if not reject.style]:
        tell("of no style" + first_reasons(homeless, SHOWN_REJECTS))
    for note in listing.notes:
        tell(note)
    if style not in listing.styles():
        reasons = "".join(f"; {r.path}: {r.reason}" for r in listing.rejects[:3])
        names = ", ".join(listing.styles()) or "none"
        raise CatalogError(f"{spec.path} has no photos of style {style!r}; its styles: {names}{reasons}")
    take_in(store, spec, listing)
    states = {name: listing_state(listing.of(name).entries) for name in listing.styles()}
    return states, len(listing.of(style).entries)


def _is_described(store: "Store", style: str, state: str) -> bool:
    """Whether the photos of a style are described as they lie there now, and the description is whole."""
    current = store.sources.done_with(style, "features") == state
    return current and all(store.records.intact(kind, style) for kind in ("catalog", "features"))


def _prepare(launch: "Launcher", style: str, report: Follow) -> None:
    """Describe the photos of a neighbouring style; its failure does not stop the style that was asked for."""
    from fashion_pipeline.running.launching import Event
    from fashion_pipeline.store.errors import LockedError

    try:
        launch.launch(
            "catalog", style, {}, _tags(style, "another style of the source is run"), lambda event: report(style, event)
        )
    except LockedError as error:
        report(style, Event("failed", "", str(error)))


def _tags(style: str, reason: str = "asked for on the command line") -> dict[str, str]:
    from fashion_pipeline.running.runs import PROFILE, REASON, STYLE

    profile = Path(read_settings().profile).stem
    return {PROFILE: profile, STYLE: style, REASON: reason, "started_from": "the command line"}


def _print_event(style: str, event: "Event") -> None:
    if event.kind in ("started", "failed", "message", "progress"):
        print(f"{style}: {event.step} {event.text or event.kind}", file=sys.stderr)


def _latest_report(kind: str, style: str) -> dict[str, Any]:
    return open_store().records.latest(kind, style_slug(style)).json(REPORT)
