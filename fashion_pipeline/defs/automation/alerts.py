"""Who is told what: a run that failed, and the verdict of an evaluation. Off until somebody switches them on."""

import dagster as dg

from fashion_pipeline.resources.alerting import Alert, send
from fashion_pipeline.running.runs import PARTITION, REASON, in_words
from fashion_pipeline.settings import read_secrets
from fashion_pipeline.stages.standing.outcome import outcome_of
from fashion_pipeline.store.store import Store

HOW = (
    "Whom it tells, and how, is in the section [alerts] of settings.toml in the data root: a log file, a webhook, "
    "e-mail; nobody unless one is named. `fashion-pipeline alerts --test` tries it."
)


@dg.run_failure_sensor(
    name="failure_alerts",
    monitor_all_code_locations=False,
    description=f"Tells people that a run failed, for which style, why it was started and what went wrong. {HOW}",
)
def failure_alerts(context: dg.RunFailureSensorContext, store: dg.ResourceParam[Store]) -> dg.SkipReason:
    """One alert a run."""
    run = context.dagster_run
    style = run.tags.get(PARTITION, "")
    causes = [in_words(each.step_failure_data.error) for each in context.get_step_failure_events()]
    why = "\n".join(dict.fromkeys(causes)) or str(context.failure_event.message)
    text = f"{why}\nJob {run.job_name}, {run.tags.get(REASON, 'for no reason given')}. Its page: /runs/{run.run_id}"
    return _tell(store, "failure", Alert(f"{style or run.job_name}: a run failed", text, style, run.run_id))


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    name="verdict_alerts",
    description=f"Tells people the verdict of each evaluation, and which version is published. {HOW}",
)
def verdict_alerts(context: dg.RunStatusSensorContext, store: dg.ResourceParam[Store]) -> dg.SkipReason:
    """One alert an evaluation; a run that found its evaluation made says nothing."""
    run = context.dagster_run
    style = run.tags.get(PARTITION, "")
    evaluation = store.records.newest("evaluation", style) if style else None
    if evaluation is None or evaluation.run != run.run_id:
        return dg.SkipReason("this run evaluated nothing")
    stands = outcome_of(store, style, evaluation)
    text = f"{stands.reason}\nThis version: {stands.state}. Its page: /runs/{run.run_id}"
    return _tell(store, "verdict", Alert(f"{style}: {stands.headline}", text, style, run.run_id))


ALERTS = (failure_alerts, verdict_alerts)


def _tell(store: Store, what: str, alert: Alert) -> dg.SkipReason:
    alerts = store.preferences.read().alerts
    if what not in alerts.on or not alerts.ways:
        return dg.SkipReason(f"nobody wants to be told: {alert.subject}")
    ways = send(alert, alerts, read_secrets(), store)
    return dg.SkipReason(f"told by {', '.join(ways)}: {alert.subject}")
