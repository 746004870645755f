"""Telling people: a line in a file, a webhook, an e-mail."""

import json
import smtplib
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from urllib.parse import urlsplit

from fashion_pipeline.core.automation.preferences import Alerts
from fashion_pipeline.settings import Secrets
from fashion_pipeline.store.store import Store

SECONDS = 15.0
"""That a server may take to answer."""


class AlertError(RuntimeError):
    """An alert did not get through by some way; the message says which, and what to do."""


@dataclass(frozen=True)
class Alert:
    """What is told."""

    subject: str
    text: str
    style: str = ""
    run: str = ""


def send(alert: Alert, alerts: Alerts, secrets: Secrets, store: Store) -> list[str]:
    """Tell it by all ways that the settings file names; returns them.

    Raises AlertError after all were tried, if any failed.
    """
    ways: dict[str, Callable[[], None]] = {
        "log": lambda: _log(alert, store),
        "webhook": lambda: _post(alert, secrets.webhook),
        "email": lambda: _mail(alert, alerts, secrets.smtp_password),
    }
    problems = []
    for way in alerts.ways:
        try:
            ways[way]()
        except (OSError, ValueError, smtplib.SMTPException) as error:
            problems.append(f"{way}: {error}")
    if problems:
        raise AlertError(f"alert {alert.subject!r} was not told by " + "; ".join(problems))
    return alerts.ways


def _log(alert: Alert, store: Store) -> None:
    path = store.files.inside("alerts.log")
    path.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with path.open("a", encoding="utf-8") as file:
        file.write(" ".join(f"{now} {alert.subject}: {alert.text}".split()) + "\n")


def _post(alert: Alert, address: str) -> None:
    """JSON as Slack, Mattermost and most others take it, with fields for programs beside the text."""
    if urlsplit(address).scheme not in ("http", "https"):
        raise ValueError("set FASHION_PIPELINE_WEBHOOK to the http or https address that takes alerts")
    body = {"text": f"{alert.subject}\n{alert.text}", "style": alert.style, "run": alert.run}
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json", "User-Agent": "fashion-pipeline"}
    )
    with urllib.request.urlopen(request, timeout=SECONDS):
        return


def _mail(alert: Alert, alerts: Alerts, password: str) -> None:
    message = EmailMessage()
    message["Subject"] = " ".join(alert.subject.split())
    message["From"], message["To"] = alerts.sender, ", ".join(alerts.email)
    message.set_content(alert.text)
    host, _, port = alerts.smtp.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"smtp is {alerts.smtp!r}: write it as host:port")
    with smtplib.SMTP(host, int(port), timeout=SECONDS) as server:
        if alerts.starttls:
            server.starttls()
        if alerts.smtp_user:
            if not password:
                raise ValueError("set FASHION_PIPELINE_SMTP_PASSWORD to the password of smtp_user")
            server.login(alerts.smtp_user, password)
        server.send_message(message)
