"""When styles are retrained by themselves, who is told, and where figures go: the settings file of a data root.

```toml
[retraining]             # of every style
cron = "0 3 * * 1"
timezone = "Europe/Paris"
new_photos = 20
drift = 0.01

[styles.coat]            # what is different for one style
cron = "0 3 * * *"
new_photos = 50

[alerts]
webhook = true           # its address is a secret: FASHION_PIPELINE_WEBHOOK
email = ["studio@example.com"]
smtp = "mail.example.com:587"
```
"""

from typing import Any, Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator

WEEKLY = "0 3 * * 1"
"""Mondays at three in the morning."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Section):
    """When a style is retrained."""

    cron: str = Field(default=WEEKLY, description="When to look for any reason to retrain, as a cron; empty for never.")
    new_photos: int = Field(
        default=20, ge=0, description="New photos with which the sensor retrains at once; 0 for never."
    )
    drift: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="Level of the test whether new photos differ from those trained on; below it the sensor retrains "
        "at once, however few they are. 0 for never.",
    )


class Retraining(Rule):
    """The rule of all styles that have no other."""

    timezone: str = Field(default="UTC", description="Time zone of the crons, such as Europe/Paris.")

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value != "UTC" and value not in available_timezones():
            raise ValueError("it is not a time zone of the IANA data base, such as UTC or Europe/Paris")
        return value


class StyleRule(_Section):
    """What is different for one style; None is the rule of all."""

    cron: str | None = Field(default=None, description="See [retraining].")
    new_photos: int | None = Field(default=None, ge=0, description="See [retraining].")
    drift: float | None = Field(default=None, ge=0, lt=1, description="See [retraining].")


class Alerts(_Section):
    """Who is told of runs that failed and of verdicts, and how. Nobody, unless a way is named."""

    on: tuple[Literal["failure", "verdict"], ...] = Field(
        default=("failure", "verdict"), description="What is told: failure of a run, verdict of an evaluation."
    )
    log: bool = Field(default=False, description="Write to alerts.log in the data root.")
    webhook: bool = Field(
        default=False,
        description="Post JSON with the field text to the address in FASHION_PIPELINE_WEBHOOK, as Slack and Mattermost "
        "take it.",
    )
    email: tuple[str, ...] = Field(default=(), description="Addresses that get an e-mail.")
    sender: str = Field(default="fashion-pipeline@localhost", description="Address that e-mails come from.")
    smtp: str = Field(default="localhost:25", description="Mail server, as host:port.")
    smtp_user: str = Field(
        default="", description="User of the mail server; the password is in FASHION_PIPELINE_SMTP_PASSWORD."
    )
    starttls: bool = Field(default=True, description="Encrypt the connection to the mail server.")

    @property
    def ways(self) -> list[str]:
        """The ways that are named."""
        named = {"log": self.log, "webhook": self.webhook, "email": bool(self.email)}
        return [name for name, wanted in named.items() if wanted]


class Tracking(_Section):
    """Where else the figures of each evaluation go. Nowhere, unless an address is given."""

    mlflow: str = Field(
        default="", description="Tracking URI of MLflow, such as http://127.0.0.1:5000; it wants the extra `tracking`."
    )


class Preferences(_Section):
    """The settings file; every part may be left out."""

    retraining: Retraining = Retraining()
    alerts: Alerts = Alerts()
    tracking: Tracking = Tracking()
    styles: dict[str, StyleRule] = Field(default={}, description="A section for each style that is different.")

    def rule(self, style: str) -> Rule:
        """When a style is retrained."""
        chosen: dict[str, Any] = self.retraining.model_dump(exclude={"timezone"})
        if style in self.styles:
            chosen |= self.styles[style].model_dump(exclude_none=True)
        return Rule(**chosen)

    def crons(self) -> list[str]:
        """All crons in use, each once."""
        rules = [self.retraining, *map(self.rule, self.styles)]
        return list(dict.fromkeys(rule.cron for rule in rules if rule.cron))
