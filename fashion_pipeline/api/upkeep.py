"""Keeping an installation in order: where photos lie, what may go, and what is missing."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_pipeline.api.common import open_models, open_store
from fashion_pipeline.api.running import source_spec
from fashion_pipeline.core.catalog.listing import SourceSpec, style_slug
from fashion_pipeline.settings import enter, read_settings

if TYPE_CHECKING:
    from fashion_pipeline.store.pruning import Leftover


@dataclass(frozen=True)
class Check:
    """One line of the doctor's findings."""

    name: str
    ok: bool
    found: str
    mend: str = ""


def move(source: str | Path | SourceSpec) -> list[str]:
    """Let all styles of a source come from there, wherever their photos came from before; returns the styles.

    Photos that are the same keep their product group and split, whatever they are called now. Raises CatalogError.
    """
    from fashion_pipeline.intake.sources import read_source
    from fashion_pipeline.stages.catalog.sources import take_in

    spec = source_spec(source)
    return take_in(open_store(), spec, read_source(spec), move=True)


def remove(style: str) -> None:
    """Forget a style: its source, choices and results; its photos and published versions stay.

    Raises StorageError for an unknown style, LockedError while it is being run.
    """
    from fashion_pipeline.running.launching import opened_instance
    from fashion_pipeline.running.runs import busy
    from fashion_pipeline.store.errors import LockedError

    store, style = open_store(), style_slug(style)
    enter(read_settings())
    with opened_instance(store) as instance:
        if worker := busy(instance, store, style):
            raise LockedError(f"style {style!r}: {worker}: wait for it, or cancel it")
        store.forget(style)
        instance.delete_dynamic_partition("styles", style)


def status() -> dict[str, list[dict[str, Any]]]:
    """How everything stands: `styles`, `runs` under way or failed, `ticks` of schedule and sensors, `disk` in bytes.

    Raises StorageError for a settings file that cannot be read.
    """
    from fashion_pipeline.running.launching import opened_instance
    from fashion_pipeline.running.operation import runs, ticks
    from fashion_pipeline.stages.standing.status import standings
    from fashion_pipeline.store.usage import usage

    store = open_store()
    preferences = store.preferences.read()
    enter(read_settings())
    with opened_instance(store) as instance:
        tables: dict[str, Iterable[Any]] = {
            "styles": standings(store, open_models().profile),
            "runs": runs(instance),
            "ticks": ticks(instance, preferences),
            "disk": usage(store),
        }
        return {name: [asdict(row) for row in rows] for name, rows in tables.items()}


def clean(*, dry_run: bool = True) -> "list[Leftover]":
    """Remove superseded trainings, models, records, images and caches; returns what was (or would be) removed.

    The newest of everything, what it was made from, and all that a published version needs stay. Raises LockedError,
    before anything is removed, while a style is being run.
    """
    from fashion_pipeline.store.pruning import leftovers, remove_leftovers

    store = open_store()
    return leftovers(store) if dry_run else remove_leftovers(store)


def doctor(profile: str | None = None) -> list[Check]:
    """What is there and what is missing: versions, storage, device, models. Nothing is downloaded."""
    from fashion_pipeline import diagnosis

    settings = read_settings()
    return [Check(*finding) for finding in diagnosis.examine(settings, profile or settings.profile)]
