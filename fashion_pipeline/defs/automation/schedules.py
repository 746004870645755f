"""Retraining on a schedule: at the times that the settings file gives, each style that has a reason."""

from collections.abc import Iterator
from datetime import datetime

import dagster as dg
from dagster._utils.schedules import is_valid_cron_schedule, schedule_execution_time_iterator

from fashion_pipeline.core.automation.preferences import Preferences
from fashion_pipeline.core.automation.reasons import Decision, on_schedule
from fashion_pipeline.core.catalog.listing import CatalogError
from fashion_pipeline.defs.automation.jobs import full_pipeline_job
from fashion_pipeline.defs.styles import styles
from fashion_pipeline.running.runs import REASON, busy
from fashion_pipeline.settings import SettingsError
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.standing.retraining import change_now
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.store import Store

NAME = "retraining"


def retraining(preferences: Preferences) -> list[dg.ScheduleDefinition]:
    """The schedule, which ticks whenever a cron of the settings file does; none where no style has one."""
    require_crons(preferences)
    crons = preferences.crons()
    if not crons:
        return []

    @dg.schedule(
        name=NAME,
        job=full_pipeline_job,
        cron_schedule=crons,
        execution_timezone=preferences.retraining.timezone,
        description=(
            "Retrains each style that is due and has a reason: photos came or went, the profile or what was chosen for "
            "it changed, or it was never trained. A tick that finds no reason says so and starts nothing. The times "
            "are in settings.toml of the data root; fashion-pipeline automation changes them. Reload the code location "
            "afterwards."
        ),
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, store: dg.ResourceParam[Store], models: dg.ResourceParam[Models]
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        yield from scheduled_runs(context, store, models)

    return [schedule]


def scheduled_runs(
    context: dg.ScheduleEvaluationContext, store: Store, models: Models
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """A run for each style that is due and has a reason, with the configuration that was last chosen for it."""
    now, preferences = context.scheduled_execution_time, store.preferences.read()
    registered, listed = store.sources.styles(), context.instance.get_dynamic_partitions(str(styles.name))
    reasons, requests = [without_photos(style) for style in listed if style not in registered], []
    for style in listed:
        if style not in registered or not is_due(preferences.rule(style).cron, now, preferences.retraining.timezone):
            continue
        decision = _decide(context.instance, store, models, preferences, style)
        if decision.retrain:
            key, tags = f"{now.isoformat()}:{style}", {REASON: decision.why}
            requests.append(dg.RunRequest(key, store.sources.run_config(style), tags, partition_key=style))
        else:
            reasons.append(f"{style}: {decision.why}")
    yield from requests
    if not requests:
        yield dg.SkipReason("; ".join(reasons) or ("no style is due" if registered else "there are no styles yet"))
    for text in reasons if requests else ():
        context.log.info(text)


def require_crons(preferences: Preferences) -> None:
    """Raise SettingsError for a settings file with a cron that is none: it would keep Dagster from loading anything."""
    for cron in preferences.crons():
        require_cron(cron)


def require_cron(text: str) -> None:
    """Raise SettingsError for a text that is no cron which a schedule can have."""
    if not is_valid_cron_schedule(text):
        raise SettingsError(
            f"cron {text!r} in settings.toml is none: write minute, hour, day, month and day of the week, for example "
            '"0 3 * * 1" for Mondays at three'
        )


def is_due(cron: str, at: datetime, timezone: str) -> bool:
    """Whether a cron fires at a time; an empty one never does."""
    if not cron:
        return False
    before = at.timestamp() - 1  # not by the clock on the wall, which leaps twice a year
    due = next(iter(schedule_execution_time_iterator(before, cron, timezone)))
    return due.timestamp() == at.timestamp()


def without_photos(style: str) -> str:
    """What to say of a partition that somebody added by hand."""
    return f"{style!r} was added in the UI, but no source has photos of it: add some, or delete the partition"


def _decide(
    instance: dg.DagsterInstance, store: Store, models: Models, preferences: Preferences, style: str
) -> Decision:
    if worker := busy(instance, store, style):
        return Decision(False, worker)
    try:
        change = change_now(store, models.profile, style)
    except (CatalogError, StorageError) as error:
        return Decision(False, str(error))
    return on_schedule(change, preferences.rule(style))
