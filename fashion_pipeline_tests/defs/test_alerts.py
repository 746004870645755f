"""Who is told of a failure and of a verdict: by a file, a webhook, an e-mail; nobody unless asked for."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from fashion_pipeline.cli import app
from fashion_pipeline.core.automation.preferences import Alerts
from fashion_pipeline.core.catalog.listing import CatalogError
from fashion_pipeline.definitions import defs
from fashion_pipeline.defs.automation.alerts import failure_alerts, verdict_alerts
from fashion_pipeline.resources.alerting import Alert, AlertError, send
from fashion_pipeline.settings import Secrets
from fashion_pipeline.store.store import Store

ALERT = Alert("coat: a run\nfailed", "no photos\nof style coat", "coat", "r1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@contextmanager
def listening(server: Any) -> Iterator[Any]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A web server that keeps what is posted to it."""
    heard: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    with listening(HTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}/hook", heard


@contextmanager
def mail_server() -> Iterator[tuple[str, list[str]]]:
    """As much of a mail server as takes one message."""
    heard: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 ready\r\n")
            while line := self.rfile.readline().decode().strip():
                heard.append(line)
                if line.upper() == "DATA":
                    self.wfile.write(b"354 go on\r\n")
                    while (text := self.rfile.readline().decode().strip()) != ".":
                        heard.append(text)
                if line.upper() == "QUIT":
                    return
                self.wfile.write(b"250 fine\r\n")

    with listening(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"127.0.0.1:{server.server_address[1]}", heard


def test_an_alert_takes_every_way_that_is_named(store: Store) -> None:
    with webhook() as (address, posted), mail_server() as (smtp, mailed):
        alerts = Alerts(log=True, webhook=True, email=("a@b.example",), smtp=smtp, starttls=False)
        assert send(ALERT, alerts, Secrets(address), store) == ["log", "webhook", "email"]
    assert posted == [{"text": f"{ALERT.subject}\n{ALERT.text}", "style": "coat", "run": "r1"}]
    assert "rcpt TO:<a@b.example>" in mailed and "Subject: coat: a run failed" in mailed and "of style coat" in mailed
    (line,) = (store.root / "alerts.log").read_text().splitlines()
    assert line.endswith("no photos of style coat")


def test_a_way_that_fails_is_named_and_keeps_no_other_from_being_taken(store: Store) -> None:
    with webhook(status=500) as (address, _), mail_server() as (smtp, mailed):
        alerts = Alerts(webhook=True, email=("a@b.example",), smtp=smtp, starttls=False)
        with pytest.raises(AlertError, match=r"was not told by webhook: HTTP Error 500") as caught:
            send(ALERT, alerts, Secrets(address), store)
    assert "of style coat" in mailed and address not in str(caught.value)


@pytest.mark.parametrize(
    ("alerts", "secrets", "said"),
    [
        (Alerts(webhook=True), Secrets(), "set FASHION_PIPELINE_WEBHOOK to the http or https address"),
        (Alerts(webhook=True), Secrets("file:///etc/passwd"), "set FASHION_PIPELINE_WEBHOOK"),
        (Alerts(email=("a@b",), smtp="mail"), Secrets(), "smtp is 'mail': write it as host:port"),
    ],
)
def test_a_way_that_cannot_be_taken_says_what_to_do(store: Store, alerts: Alerts, secrets: Secrets, said: str) -> None:
    with pytest.raises(AlertError, match=said):
        send(ALERT, alerts, secrets, store)


def test_secrets_are_not_shown() -> None:
    assert "hook" not in repr(Secrets("https://hook", "word")) and "word" not in repr(Secrets("https://hook", "word"))


def wanting(store: Store, *what: str) -> None:
    store.preferences.change("alerts", log=True, on=list(what))


def log_of(store: Store) -> str:
    path = store.root / "alerts.log"
    return path.read_text() if path.exists() else ""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def failed_run(instance: dg.DagsterInstance) -> Any:
    @dg.op
    def breaks() -> None:
        raise CatalogError("no photos of style 'coat': add some")

    @dg.job(tags={"dagster/partition": "coat", "reason": "24 new photos"})
    def broken() -> None:
        breaks()

    return broken.execute_in_process(instance=instance, raise_on_error=False)


def test_a_run_that_failed_is_told_with_its_style_reason_and_error(store: Store, instance: dg.DagsterInstance) -> None:
    result = failed_run(instance)
    failure = next(event for event in result.all_events if event.event_type_value == "PIPELINE_FAILURE")

    def tick() -> Any:
        context = dg.build_run_status_sensor_context(
            "failure_alerts", failure, instance, result.dagster_run, resources={"store": store}
        ).for_run_failure()
        return failure_alerts(context)

    assert "nobody wants to be told" in str(tick().skip_message) and log_of(store) == ""
    wanting(store, "verdict")
    assert "nobody wants to be told" in str(tick().skip_message)
    wanting(store, "failure")
    assert "told by log" in str(tick().skip_message)
    assert "coat: a run failed: no photos of style 'coat': add some Job broken" in log_of(store)
    assert "24 new photos" in log_of(store) and result.run_id in log_of(store)


def test_a_verdict_is_told_once_and_only_of_the_run_that_evaluated(store: Store, instance: dg.DagsterInstance) -> None:
    @dg.job(tags={"dagster/partition": "coat"})
    def whole() -> None:
        return

    result = whole.execute_in_process(instance=instance)
    success = next(event for event in result.all_events if event.event_type_value == "PIPELINE_SUCCESS")

    def tick() -> Any:
        context = dg.build_run_status_sensor_context(
            "verdict_alerts", success, instance, result.dagster_run, resources={"store": store}
        )
        return verdict_alerts(context)

    wanting(store, "verdict")
    assert tick().skip_message == "this run evaluated nothing"
    content = {"verdict": "better", "reason": "Closer to photos it never saw.", "model": "v1"}
    store.records.add("evaluation", "coat", key="e1", files={"report.json": content}, run="another run")
    assert tick().skip_message == "this run evaluated nothing"
    store.records.add("evaluation", "coat", key="e2", files={"report.json": content}, run=result.run_id)
    assert tick().skip_message == "told by log: coat: Training helped."
    assert "coat: Training helped.: Closer to photos it never saw. This version: ready to publish." in log_of(store)


def test_nothing_is_on_by_itself() -> None:
    for sensor in (*(defs.sensors or ()), *(defs.schedules or ())):
        assert sensor.default_status.value == "STOPPED", sensor.name
        assert len(sensor.description or "") > 80, sensor.name


def test_alerts_can_be_tried(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_PIPELINE_DATA", str(store.root))
    nobody = CliRunner().invoke(app, ["alerts", "--test"])
    assert nobody.exit_code == 1 and "nobody is told of anything" in nobody.output
    wanting(store, "failure")
    assert "told by log" in CliRunner().invoke(app, ["alerts", "--test"]).output
    assert "log = true" in CliRunner().invoke(app, ["alerts"]).output
    store.preferences.change("alerts", webhook=True)
    broken = CliRunner().invoke(app, ["alerts", "--test"])
    assert broken.exit_code == 1 and "FASHION_PIPELINE_WEBHOOK" in broken.output
