"""An evaluation told to MLflow, where somebody asks for it."""

import sys
from pathlib import Path

import pytest

from fashion_pipeline.stages.evaluation.tracking import RECORD, track
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

REPORT = {
    "verdict": "better",
    "profile": "embedded",
    "scores": [
        {"model": "specialised", "prompt": "plain", "measure": "judge", "split": "dev", "mean": 0.75},
        {"model": "specialised", "prompt": "plain", "measure": "judge", "split": "test", "mean": 0.5},
    ],
}


def evaluation(store: Store) -> Record:
    row = {"step": 3, "loss": 0.25, "held_out_loss": None, "learning_rate": 0.001, "gradient_norm": None}
    training = store.records.add(
        "training",
        "coat",
        made_of={"rank": 8, "control": False},
        tables={"training_log": [row | {"similarity": 0.5}]},
    )
    files = {"report.json": REPORT, "report.html": "<p>report</p>"}
    tables = {"evaluation_samples": [], "nearest": [], "scores": []}
    return store.records.add("evaluation", "coat", inputs={"training": training}, tables=tables, files=files, run="r1")


def test_an_evaluation_is_told_once_with_its_curve_figures_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a server stores elsewhere
    mlflow = pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
    store = Store(tmp_path / "data")
    told, address = evaluation(store), (tmp_path / "mlruns").as_uri()
    assert track(store, told, address) is None
    assert track(store, told, address) is None
    client = mlflow.tracking.MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("fashion-pipeline/coat")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["rank"] == "8"
    assert run.data.metrics == pytest.approx(
        {
            "loss": 0.25,
            "learning_rate": 0.001,
            "similarity": 0.5,
            "judge/specialised plain": 0.75,
        }
    )
    assert (run.data.tags["verdict"], run.data.tags["dagster.run"]) == ("better", "r1")
    assert run.data.tags[RECORD] == told.key
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.html"]


def test_without_mlflow_the_mend_is_told_and_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow.entities", None)
    store = Store(tmp_path / "data")
    told = track(store, evaluation(store), "http://127.0.0.1:1")
    assert told is not None and "fashion-pipeline[tracking]" in told


def test_a_server_that_is_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = Store(tmp_path / "data")
    told = track(store, evaluation(store), "http://127.0.0.1:1")
    assert told is not None and "could not be told to MLflow at http://127.0.0.1:1" in told


def test_an_evaluation_that_was_told_by_half_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="the extra `tracking` is not installed")
    client_class = mlflow.tracking.MlflowClient
    store = Store(tmp_path / "data")
    told, address = evaluation(store), (tmp_path / "mlruns").as_uri()

    def away(*_: object, **__: object) -> None:
        raise ConnectionError("the server went away")

    with monkeypatch.context() as patched:
        patched.setattr(client_class, "log_batch", away)
        problem = track(store, told, address)
    assert problem is not None and "went away" in problem
    assert track(store, told, address) is None
    client = client_class(tracking_uri=address)
    experiment = client.get_experiment_by_name("fashion-pipeline/coat").experiment_id
    (whole,) = client.search_runs([experiment], f"tags.`{RECORD}` = '{told.key}'")
    assert whole.data.metrics["loss"] == 0.25
