"""What the Dagster instance is doing: runs under way, runs that failed, and what ticks next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fashion_pipeline.core.automation.preferences import Preferences

if TYPE_CHECKING:
    from dagster import DagsterInstance

LOOKED_AT = 20
"""Materialisations of an asset that are looked at for its pace."""

RECENT = timedelta(days=7)
"""Failures that are listed."""


@dataclass(frozen=True)
class Run:
    """A run that is under way, or that failed."""

    run: str
    style: str
    job: str
    status: str
    reason: str
    since: str
    """Date and time, ISO 8601, UTC."""


@dataclass(frozen=True)
class Pace:
    """How fast this data root's last run was; None where nothing was measured yet."""

    images: float | None
    """Drawn a second."""
    steps: float | None
    """Trained a second."""
    beside: float = 0.0
    """Seconds that the other steps took."""

    def seconds(self, images: int, steps: int) -> float | None:
        """What so many images and steps take; None where a pace is missing that is needed."""
        if (images and not self.images) or (steps and not self.steps):
            return None
        return images / (self.images or 1.0) + steps / (self.steps or 1.0) + self.beside


@dataclass(frozen=True)
class Tick:
    """A schedule or sensor."""

    name: str
    on: bool
    next: str
    """When it ticks next: date and time, ISO 8601, or how often; empty where it is off."""


def runs(instance: "DagsterInstance") -> list[Run]:
    """Runs queued or under way, and those of the last week that failed, unless a later one of the kind went well."""
    from dagster import DagsterRunStatus, RunsFilter

    from fashion_pipeline.running.runs import UNDER_WAY

    after = datetime.now(UTC) - RECENT
    failed = RunsFilter(statuses=[DagsterRunStatus.FAILURE], created_after=after)
    done = RunsFilter(statuses=[DagsterRunStatus.SUCCESS], created_after=after)
    mended = {
        _place(record.dagster_run.tags, record.dagster_run.job_name): record.create_timestamp
        for record in reversed(instance.get_run_records(done))
    }
    listed = []
    for wanted in (RunsFilter(statuses=UNDER_WAY), failed):
        for record in instance.get_run_records(wanted):
            run = record.dagster_run
            later = mended.get(_place(run.tags, run.job_name))
            if run.status == DagsterRunStatus.FAILURE and later is not None and later > record.create_timestamp:
                continue
            since = record.create_timestamp.replace(tzinfo=record.create_timestamp.tzinfo or UTC)
            listed.append(
                Run(
                    run.run_id,
                    run.tags.get("dagster/partition", ""),
                    run.job_name,
                    run.status.value.lower(),
                    run.tags.get("reason", ""),
                    since.isoformat(timespec="seconds"),
                )
            )
    return listed


DRAWING, TRAINING = ("generated_samples", "evaluation_report"), "lora_weights"
"""Steps whose time depends on how much there is to draw, or to train."""


def pace(instance: "DagsterInstance", steps: Sequence[str] = ()) -> Pace:
    """By the newest materialisations that really drew, or trained, something; `steps` are all those of a run."""

    def newest(rate: str, *assets: str) -> float | None:
        from dagster import AssetKey

        values = [
            (record.timestamp, float(str(record.asset_materialization.metadata[rate].value)))
            for asset in assets
            for record in instance.fetch_materializations(AssetKey(asset), limit=LOOKED_AT).records
            if record.asset_materialization and rate in record.asset_materialization.metadata
        ]
        return max(values)[1] if values else None

    beside = [newest("seconds", step) or 0.0 for step in steps if step not in (*DRAWING, TRAINING)]
    return Pace(newest("images a second", *DRAWING), newest("steps a second", TRAINING), sum(beside))


def ticks(instance: "DagsterInstance", preferences: Preferences) -> Iterator[Tick]:
    """The schedule and the sensors, and when each looks next."""
    from dagster._core.scheduler.instigation import InstigatorStatus

    from fashion_pipeline.definitions import defs

    states = instance.all_instigator_state()
    running = {state.instigator_name for state in states if state.status == InstigatorStatus.RUNNING}
    for schedule in defs.schedules or ():
        on = schedule.name in running
        yield Tick(schedule.name, on, _next(preferences) if on else "")
    for sensor in defs.sensors or ():
        on = sensor.name in running
        yield Tick(sensor.name, on, f"every {sensor.minimum_interval_seconds or 30} seconds" if on else "")


def _place(tags: Mapping[str, str], job: str) -> tuple[str, str]:
    return tags.get("dagster/partition", ""), job


def _next(preferences: Preferences) -> str:
    """When the first cron fires next."""
    from dagster._utils.schedules import schedule_execution_time_iterator

    now, timezone = datetime.now(UTC).timestamp(), preferences.retraining.timezone
    times = [next(iter(schedule_execution_time_iterator(now, cron, timezone))) for cron in preferences.crons()]
    return min(times).isoformat(timespec="minutes") if times else ""
