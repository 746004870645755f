"""Retraining on a schedule: every week, a run for each style."""

from collections.abc import Iterator

import dagster as dg

from fashion_pipeline.defs.jobs import full_pipeline_job
from fashion_pipeline.defs.styles import styles


@dg.schedule(job=full_pipeline_job, cron_schedule="0 3 * * 1", execution_timezone="UTC")
def weekly_retraining(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
    """Monday at 03:00 UTC; what is cached by content costs nothing, so an unchanged style is a matter of seconds."""
    tick = context.scheduled_execution_time.isoformat()
    for style in context.instance.get_dynamic_partitions(str(styles.name)):
        yield dg.RunRequest(run_key=f"{tick}:{style}", partition_key=style)
