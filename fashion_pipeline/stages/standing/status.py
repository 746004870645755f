"""How each style stands: what has changed since it was trained, its verdict, and the version in use."""

from dataclasses import dataclass

from fashion_pipeline.core.catalog.listing import CatalogError
from fashion_pipeline.intake.sources import listing_state, read_style
from fashion_pipeline.settings import Profile
from fashion_pipeline.stages.standing.retraining import change_of, evaluated_at
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.store import Store


@dataclass(frozen=True)
class Standing:
    """One style."""

    style: str
    photos: int | None = None
    evaluated: str | None = None
    """Date and time, ISO 8601, UTC; None where it never was."""
    verdict: str | None = None
    decision: str | None = None
    """What was decided about the newest evaluation, in one sentence."""
    published: str | None = None
    """The version in use."""
    waiting: str | None = None
    changed: str = ""
    """What is different from when it was trained; empty where nothing is."""
    problem: str = ""
    """What is damaged or missing, and how to mend it."""


def standings(store: Store, profile: Profile) -> list[Standing]:
    """Every registered style."""
    return [_standing(store, profile, style) for style in store.sources.styles()]


def _standing(store: Store, profile: Profile, style: str) -> Standing:
    try:
        pointer = store.versions.pointer(style)
        evaluation = store.records.newest("evaluation", style)
        report = evaluation.report() if evaluation else None
        entries = read_style(store.sources.source(style), style).entries
        change = change_of(store, profile, style, listing_state(entries))
    except (CatalogError, StorageError) as error:
        return Standing(style, problem=str(error))
    changed = str(change) if change else ""
    decision = report.told() if report else None
    return Standing(
        style,
        photos=change.photos,
        evaluated=evaluated_at(store, style),
        verdict=report.verdict if report else None,
        decision=decision.headline if decision else None,
        published=pointer.version,
        waiting=pointer.waiting,
        changed=changed if change.trained else "never trained",
    )
