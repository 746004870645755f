"""When styles are retrained by themselves."""

from typing import Any

from fashion_pipeline.api.common import open_store
from fashion_pipeline.core.catalog.listing import style_slug
from fashion_pipeline.settings import read_secrets


def automation() -> list[dict[str, Any]]:
    """The rule of each style: when it is looked at, with how many new photos, and at which level of drift."""
    store = open_store()
    preferences = store.preferences.read()
    names = dict.fromkeys([*store.sources.styles(), *preferences.styles])
    default = {"style": "(all others)", **preferences.retraining.model_dump(exclude={"timezone"})}
    return [default, *({"style": name, **preferences.rule(name).model_dump()} for name in names)]


def alerts() -> dict[str, Any]:
    """Who is told of what, and how: the section `[alerts]` of `settings.toml`."""
    return open_store().preferences.read().alerts.model_dump(mode="json")


def try_alerts() -> list[str]:
    """Tell everybody who would be told of a failure or a verdict that this is a test; returns the ways.

    Raises AlertError for ways that failed, ValueError where none is named.
    """
    from fashion_pipeline.resources.alerting import Alert, send

    store = open_store()
    alerts = store.preferences.read().alerts
    if not alerts.ways:
        raise ValueError(
            f"nobody is told of anything: name a way under [alerts] in {store.preferences.path}, such as log = true"
        )
    return send(Alert("fashion-pipeline: a test", "Alerts get through."), alerts, read_secrets(), store)


def automate(
    style: str | None = None,
    *,
    cron: str | None = None,
    timezone: str | None = None,
    new_photos: int | None = None,
    drift: float | None = None,
) -> None:
    """Change the rule of a style, or of all that have no other, in `settings.toml` of the data root.

    An empty cron, and 0 for the others, mean never. A running UI takes a new cron when its code location is reloaded,
    the rest at the next tick. Raises SettingsError, StorageError or ValueError for what cannot be.
    """
    from fashion_pipeline.defs.automation.schedules import require_cron

    if cron:
        require_cron(cron)
    if style is not None and timezone is not None:
        raise ValueError("the time zone is that of all styles: leave out --style, or --timezone")
    given = {"cron": cron, "timezone": timezone, "new_photos": new_photos, "drift": drift}
    values = {name: value for name, value in given.items() if value is not None}
    open_store().preferences.change("retraining", style_slug(style) if style is not None else None, **values)
