"""What starts a run when photos arrive."""

import json
from dataclasses import dataclass, field

import dagster as dg

from fashion_pipeline.core.catalog.listing import CatalogError, listing_state
from fashion_pipeline.core.catalog.sources import read_source
from fashion_pipeline.defs.jobs import full_pipeline_job
from fashion_pipeline.defs.schedules import without_photos
from fashion_pipeline.defs.styles import styles
from fashion_pipeline.resources.liveness import bury_dead_runs
from fashion_pipeline.stages.intake import known_sources, take_in
from fashion_pipeline.store.locks import holder, is_held
from fashion_pipeline.store.store import Store

TRIES = 3
"""Runs that may fail for one state of a style's photos."""

PHOTOS = "fashion_pipeline/photos"
"""Tag of a run: the state of the photos that it was asked for."""


@dataclass
class Memory:
    """What the sensor remembers from one tick to the next."""

    seen: dict[str, str] = field(default_factory=dict)
    """Style → state of its photos at the last tick."""
    handled: dict[str, str] = field(default_factory=dict)
    """Style → state of its photos for which a run was asked, or none is needed."""
    tries: dict[str, int] = field(default_factory=dict)
    """Style → runs asked for that state."""
    asked: int = 0
    """Runs asked for in all."""


@dg.sensor(job=full_pipeline_job, minimum_interval_seconds=60)
def new_photos(context: dg.SensorEvaluationContext, store: dg.ResourceParam[Store]) -> dg.SensorResult:
    """Adds a partition for every new style, and asks for a run when a style's photos have changed and come to rest.

    The first tick takes what is there as known and runs nothing. A run that failed is asked for again, twice.
    """
    bury_dead_runs(context.instance, store)
    first = context.cursor is None
    memory = Memory(**json.loads(context.cursor)) if context.cursor else Memory()
    states, reasons = _states(store)
    requests = []
    for style, state in states.items():
        if first:
            memory.handled[style] = memory.seen[style] = state
            continue
        reason = _why_not(context.instance, store, memory, style, state)
        memory.seen[style] = state
        if reason:
            reasons.append(f"{style}: {reason}")
        else:
            requests.append(_request(store, memory, style, state))
    if first and states:
        reasons.append(f"{len(states)} styles taken as known; photos that come or change from now on start runs")
    listed = context.instance.get_dynamic_partitions(str(styles.name))
    reasons += [without_photos(style) for style in listed if style not in states]
    for reason in reasons if requests else ():
        context.log.info(reason)
    added = [style for style in states if style not in listed]
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else "; ".join(reasons) or "there are no photos yet",
        dynamic_partitions_requests=[styles.build_add_request(added)] if added else [],
        cursor=json.dumps(vars(memory)),
    )


def _states(store: Store) -> tuple[dict[str, str], list[str]]:
    """Style → state of its photos, of all sources that can be read; and what is wrong with the others."""
    states: dict[str, str] = {}
    problems: list[str] = []
    for spec in known_sources(store):
        try:
            listing = read_source(spec)
            take_in(store, spec, listing)
        except CatalogError as error:
            problems.append(str(error))
            continue
        states |= {style: listing_state(listing.of(style).entries) for style in listing.styles()}
    return states, problems


def _why_not(instance: dg.DagsterInstance, store: Store, memory: Memory, style: str, state: str) -> str | None:
    """Why a style is not run now; None if it is."""
    if is_held(store.style_lock(style)):
        return f"in use by {holder(store.style_lock(style))}"
    if memory.handled.get(style) == state:
        return None if _to_retry(instance, memory, style, state) else "unchanged"
    if store.sources.ran(style) == state:
        memory.handled[style], memory.tries[style] = state, 0
        return "has been run with these photos already"
    if memory.seen.get(style) != state:
        return "photos are arriving; it is run once they have not changed for a minute"
    memory.tries[style] = 0
    return None


def _to_retry(instance: dg.DagsterInstance, memory: Memory, style: str, state: str) -> bool:
    """Whether the last run for this state failed and may be tried again."""
    tags = {"dagster/partition": style, PHOTOS: state}
    runs = instance.get_runs(dg.RunsFilter(tags=tags), limit=1)
    failed = bool(runs) and runs[0].status == dg.DagsterRunStatus.FAILURE
    return failed and 0 < memory.tries.get(style, 0) < TRIES


def _request(store: Store, memory: Memory, style: str, state: str) -> dg.RunRequest:
    memory.handled[style] = state
    memory.tries[style] = memory.tries.get(style, 0) + 1
    memory.asked += 1
    key = f"{style}:{state}:{memory.asked}"
    return dg.RunRequest(key, store.sources.run_config(style), {PHOTOS: state}, partition_key=style)
