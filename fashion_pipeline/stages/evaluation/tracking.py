"""The figures of an evaluation and of the training behind it, as a run of MLflow; only where somebody asks for it."""

from datetime import datetime
from typing import Any

from fashion_pipeline.core.evaluation.report import EvaluationReport
from fashion_pipeline.core.names import REPORT_PAGE
from fashion_pipeline.core.rows import Split
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

SERIES = ("loss", "held_out_loss", "similarity", "learning_rate")
"""Columns of the training log that are followed by step."""

RECORD = "fashion_pipeline.evaluation"
"""Tag of an MLflow run: the evaluation's key. An evaluation is told once."""


def track(store: Store, evaluation: Record, address: str) -> str | None:
    """Tell an evaluation to an MLflow server, in an experiment of the style's name; returns what went wrong, if any.

    Nothing is lost where it does: all figures are in the records. An evaluation that was told before is left as it is.
    """
    try:
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.tracking import MlflowClient
    except ImportError:
        return "mlflow is not installed, so nothing was told: pip install 'fashion-pipeline[tracking]'"
    try:
        client = MlflowClient(tracking_uri=address)
        name = f"fashion-pipeline/{evaluation.style}"
        experiment_there = client.get_experiment_by_name(name)
        experiment = experiment_there.experiment_id if experiment_there else client.create_experiment(name)
        if client.search_runs([experiment], f"tags.`{RECORD}` = '{evaluation.key}'", max_results=1):
            return None
        training, report = store.records.input(evaluation, "training"), evaluation.report()
        tags = {"verdict": report.verdict, "profile": report.profile}
        tags |= {"dagster.run": evaluation.run, "training": training.key}
        run = client.create_run(experiment, run_name=training.key, tags=tags).info.run_id
        params = [Param(key, str(value)[:500]) for key, value in training.made_of.items()]
        client.log_batch(run, _metrics(Metric, training, report), params, [RunTag("style", evaluation.style)])
        if evaluation.path(REPORT_PAGE).exists():
            client.log_artifact(run, str(evaluation.path(REPORT_PAGE)))
        client.set_terminated(run)
        client.set_tag(run, RECORD, evaluation.key)  # last: what was told by half is told again
    except Exception as error:  # whatever a server that is away or refuses makes the client raise
        return f"the evaluation could not be told to MLflow at {address}: {type(error).__name__}: {error}"
    return None


def _metrics(metric: type[Any], training: Record, report: EvaluationReport) -> list[Any]:
    """The training log by step, and the means on dev."""
    now = int(datetime.fromisoformat(training.created).timestamp() * 1000)
    log = training.table("training_log").to_pylist()
    metrics = [
        metric(name, float(row[name]), now, row["step"]) for row in log for name in SERIES if row[name] is not None
    ]
    for score in report.scores:
        if score.split == Split.DEV:
            metrics.append(metric(f"{score.measure}/{score.model} {score.prompt}", score.mean, now, 0))
    return metrics
