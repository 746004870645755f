"""What a step is run with: what its launch says, else what was chosen for the style, else the default.

It is read when the step runs, so every door is bound by what was chosen: the UI, a job, a schedule, a sensor, a
backfill, the command and a notebook. A launch can ask for other numbers, but takes no condition away.
"""

from typing import Any

import dagster as dg
from pydantic import Field

from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.store import Store

_USUAL = "usual"


def knob(usual: Any, description: str, *, unsaid: Any = None, **limits: Any) -> Any:
    """A field of a step's configuration; `usual` is its value where nobody says anything.

    `unsaid` is the default, which says nothing: empty, or a word of an enumeration, which Dagster lets nobody leave
    empty.
    """
    empty = "Empty" if unsaid is None else unsaid.capitalize()
    explained = f"{description} {empty}: what was chosen for the style, else {usual if usual != [] else 'none'}."
    return Field(default=unsaid, description=explained, json_schema_extra={_USUAL: usual}, **limits)


def usual(config: type[dg.Config]) -> dict[str, Any]:
    """Field → value where nobody says anything; None is what the profile says."""
    values = {}
    for name, field in config.model_fields.items():
        extra = field.json_schema_extra
        values[name] = extra[_USUAL] if isinstance(extra, dict) and _USUAL in extra else field.default
    return values


def chosen_for(store: Store, style: str) -> dict[str, Any]:
    """Step → what was chosen of it for a style; nothing for a style that nobody registered or that is damaged."""
    try:
        return store.sources.config(style)
    except StorageError:
        return {}


def settled(config: dg.Config, store: Store, style: str, step: str) -> dict[str, Any]:
    """Field → value of a step for a style. A field that is left as it was says nothing."""
    fields = type(config).model_fields
    said = {name: value for name, value in config.model_dump().items() if value != fields[name].default}
    chosen = {name: value for name, value in store.sources.config(style).get(step, {}).items() if name in fields}
    return usual(type(config)) | chosen | said
