"""When styles are retrained by themselves."""

from typing import Any

from fashion_pipeline.api.common import open_store
from fashion_pipeline.core.catalog.listing import style_slug


def automation() -> list[dict[str, Any]]:
    """The rule of each style: when it is looked at, with how many new photos, and at which level of drift."""
    store = open_store()
    preferences = store.preferences.read()
    names = dict.fromkeys([*store.sources.styles(), *preferences.styles])
    default = {"style": "(all others)", **preferences.retraining.model_dump(exclude={"timezone"})}
    return [default, *({"style": name, **preferences.rule(name).model_dump()} for name in names)]


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
    from fashion_pipeline.defs.schedules import require_cron

    if cron:
        require_cron(cron)
    if style is not None and timezone is not None:
        raise ValueError("the time zone is that of all styles: leave out --style, or --timezone")
    given = {"cron": cron, "timezone": timezone, "new_photos": new_photos, "drift": drift}
    values = {name: value for name, value in given.items() if value is not None}
    open_store().preferences.change("retraining", style_slug(style) if style is not None else None, **values)
