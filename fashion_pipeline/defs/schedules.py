"""Retraining on a schedule: every week, a run for each style."""

from collections.abc import Iterator

import dagster as dg

from fashion_pipeline.defs.jobs import full_pipeline_job
from fashion_pipeline.defs.styles import styles
from fashion_pipeline.store.store import Store


@dg.schedule(job=full_pipeline_job, cron_schedule="0 3 * * 1", execution_timezone="UTC")
def weekly_retraining(
    context: dg.ScheduleEvaluationContext, store: dg.ResourceParam[Store]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Monday at 03:00 UTC, each style with the configuration that was last chosen for it.

    What is cached by content costs nothing, so an unchanged style is a matter of seconds.
    """
    tick = context.scheduled_execution_time.isoformat()
    known = set(store.sources.styles())
    listed = context.instance.get_dynamic_partitions(str(styles.name))
    for style in listed:
        if style in known:
            yield dg.RunRequest(f"{tick}:{style}", store.sources.run_config(style), partition_key=style)
        else:
            context.log.warning(without_photos(style))
    if not known & set(listed):
        yield dg.SkipReason("; ".join(map(without_photos, listed)) or "there are no styles yet")


def without_photos(style: str) -> str:
    """What to say of a partition that somebody added by hand."""
    return f"{style!r} was added in the UI, but no source has photos of it: add some, or delete the partition"
