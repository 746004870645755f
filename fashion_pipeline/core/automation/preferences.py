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
```
"""

from typing import Any
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


class Preferences(_Section):
    """The settings file; every part may be left out."""

    retraining: Retraining = Retraining()
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
