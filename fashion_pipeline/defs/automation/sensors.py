"""What takes in photos that arrive, and retrains a style when enough are new or they are of another kind."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import dagster as dg

from fashion_pipeline.core.automation.reasons import Change, at_once
from fashion_pipeline.core.catalog.listing import CatalogError
from fashion_pipeline.core.features.drift import Drift
from fashion_pipeline.defs.automation.jobs import catalog_job, full_pipeline_job
from fashion_pipeline.defs.automation.schedules import without_photos
from fashion_pipeline.defs.styles import styles
from fashion_pipeline.intake.sources import listing_state, read_source
from fashion_pipeline.running.liveness import bury_dead_runs
from fashion_pipeline.running.runs import PARTITION, REASON, busy
from fashion_pipeline.stages.catalog.sources import known_sources, take_in
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.standing.retraining import change_of, position
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.store import Store

TRIES = 3
"""Runs that may fail for one cause."""

CAUSE = "fashion_pipeline/cause"
"""Tag of a run: what it was asked for, so that it is asked for once."""

TAKE_IN, RETRAIN = "catalog", "full_pipeline"


@dataclass
class Memory:
    """What the sensor remembers from one tick to the next."""

    seen: dict[str, str] = field(default_factory=dict)
    """Style → state of its photos at the last tick."""
    handled: dict[str, str] = field(default_factory=dict)
    """Style and job → the cause for which a run was asked, or none is needed."""
    tries: dict[str, int] = field(default_factory=dict)
    """Style and job → runs asked for that cause."""
    baseline: dict[str, str] = field(default_factory=dict)
    """Style that was never trained → its catalog when the sensor was switched on; empty until it has its first one."""
    measured: dict[str, list[Any]] = field(default_factory=dict)
    """Style → where it stands, and what has changed by that."""
    asked: int = 0
    """Runs asked for in all."""


@dg.sensor(
    jobs=[catalog_job, full_pipeline_job],
    minimum_interval_seconds=60,
    description=(
        "Looks at the photos of all styles each minute. A folder that appears under raw/ in the data root becomes a "
        "style. Photos that came or went are taken in and described once they have not changed for a minute; then the "
        "style is retrained if enough are new, or if a test says that they are of another kind than those trained on. "
        "How many are enough is in settings.toml; fashion-pipeline automation changes it. Styles that were there "
        "untrained when the sensor was switched on wait for new photos. A tick that starts nothing says why."
    ),
)
def new_photos(
    context: dg.SensorEvaluationContext, store: dg.ResourceParam[Store], models: dg.ResourceParam[Models]
) -> dg.SensorResult:
    """Asks for a run that takes photos in, or one that retrains; for each cause once, and twice more if it fails."""
    bury_dead_runs(context.instance, store)
    first = context.cursor is None
    memory = Memory(**json.loads(context.cursor)) if context.cursor else Memory()
    states, reasons = _states(store)
    listed = context.instance.get_dynamic_partitions(str(styles.name))
    deleted = memory.seen.keys() - set(listed)
    requests = []
    for style, state in states.items():
        if first:
            _take_as_known(store, memory, style)
        if style in deleted:
            reasons.append(_deleted(style))
            continue
        asked = _Look(context, store, models, memory, style, state).ask()
        memory.seen[style] = state
        if isinstance(asked, str):
            reasons.append(f"{style}: {asked}")
        else:
            requests.append(asked)
    if first and states:
        reasons.append(f"{len(states)} styles taken as known; photos that come or change from now on start trainings")
    reasons += [without_photos(style) for style in listed if style not in states]
    for reason in reasons if requests else ():
        context.log.info(reason)
    added = [style for style in states if style not in listed and style not in deleted]
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else "; ".join(reasons) or "there are no photos yet",
        dynamic_partitions_requests=[styles.build_add_request(added)] if added else [],
        cursor=json.dumps(vars(memory)),
    )


@dataclass
class _Look:
    """One look at one style."""

    context: dg.SensorEvaluationContext
    store: Store
    models: Models
    memory: Memory
    style: str
    state: str

    def ask(self) -> dg.RunRequest | str:
        """The run that a style needs now, or why it needs none."""
        try:
            if worker := busy(self.context.instance, self.store, self.style):
                return worker
            if self.store.sources.done_with(self.style, "features") != self.state:
                return self._take_in()
            return self._retrain()
        except StorageError as error:
            return str(error)

    def _take_in(self) -> dg.RunRequest | str:
        if self.memory.handled.get(self._key(TAKE_IN)) != self.state and self.memory.seen.get(self.style) != self.state:
            return "photos are arriving; they are taken in once they have not changed for a minute"
        return self._once(TAKE_IN, self.state, "photos arrived or changed") or "unchanged"

    def _retrain(self) -> dg.RunRequest | str:
        where, change = self._change()
        decision = at_once(change, self.store.preferences.read().rule(self.style))
        if not decision.retrain:
            return decision.why
        return self._once(RETRAIN, where, decision.why) or f"{decision.why}: was asked for already"

    def _change(self) -> tuple[str, Change]:
        """What has changed of the style; looked up again only if it stands elsewhere than at the last tick."""
        where = position(self.store, self.models.profile, self.style, self.state)
        before, remembered = self.memory.measured.get(self.style, ["", {}])
        if before == where:
            return where, Change(
                **{**remembered, "drift": Drift(**remembered["drift"]) if remembered["drift"] else None}
            )
        change = change_of(self.store, self.models.profile, self.style, self.state, self._baseline())
        self.memory.measured[self.style] = [where, asdict(change)]
        return where, change

    def _baseline(self) -> str | None:
        """The catalog that a style which was never trained is compared with; the present one where that was removed."""
        key = self.memory.baseline.get(self.style)
        if key is not None and (not key or self.store.records.find("catalog", self.style, key) is None):
            newest = self.store.records.newest("catalog", self.style)
            key = self.memory.baseline[self.style] = newest.key if newest else ""
        return key or None

    def _once(self, job: str, cause: str, why: str) -> dg.RunRequest | None:
        """A request for a run; None where it was asked for, unless that run failed and may be tried again."""
        key = self._key(job)
        if self.memory.handled.get(key) != cause:
            self.memory.handled[key], self.memory.tries[key] = cause, 0
        elif not self._failed(cause) or not 0 < self.memory.tries.get(key, 0) < TRIES:
            return None
        self.memory.tries[key] += 1
        self.memory.asked += 1
        config = self.store.sources.run_config(self.style) if job == RETRAIN else {}
        return dg.RunRequest(
            f"{self.style}:{cause}:{self.memory.asked}",
            config,
            {REASON: why, CAUSE: cause},
            job_name=job,
            partition_key=self.style,
        )

    def _failed(self, cause: str) -> bool:
        runs = self.context.instance.get_runs(dg.RunsFilter(tags={PARTITION: self.style, CAUSE: cause}), limit=1)
        return bool(runs) and runs[0].status == dg.DagsterRunStatus.FAILURE

    def _key(self, job: str) -> str:
        return f"{self.style}/{job}"


def _deleted(style: str) -> str:
    """What to say of a partition that somebody deleted in the UI."""
    return (
        f"{style}: its partition was deleted in the UI, so it is left out; fashion-pipeline run --style {style} brings "
        f"it back, fashion-pipeline remove --style {style} forgets it"
    )


def _take_as_known(store: Store, memory: Memory, style: str) -> None:
    """At the first tick: what was never trained is not trained because of the photos that are there."""
    if style in store.records.styles("evaluation"):
        return
    with suppress(StorageError):  # a damaged catalog is named where the style is looked at
        catalog = store.records.newest("catalog", style)
        memory.baseline[style] = catalog.key if catalog else ""


def _states(store: Store) -> tuple[dict[str, str], list[str]]:
    """Style → state of its photos, of all sources that can be read; and what is wrong with the others."""
    states: dict[str, str] = {}
    problems: list[str] = []
    for spec in known_sources(store):
        try:
            listing = read_source(spec)
            taken = take_in(store, spec, listing)
        except CatalogError as error:
            problems.append(str(error))
            continue
        states |= {style: listing_state(listing.of(style).entries) for style in taken}
    return states, problems
