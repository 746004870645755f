"""What runs tell about themselves, their tags; and which of them are under way."""

from pathlib import Path
from typing import Any

import dagster as dg

from fashion_pipeline.store.storage.locks import holder, is_held
from fashion_pipeline.store.store import Store

POOL = "gpu"
"""Name of the Dagster pool of every step that needs the device; its limit is set in dagster.yaml."""

REASON = "reason"
"""Tag of a run: why it was started."""

PROFILE = "profile"
"""Tag of a run: the profile that it works with."""

STYLE = "style"
PARTITION = "dagster/partition"

PACKAGE_NAME = "fashion_pipeline"
BY_HAND = "started by hand in the Dagster UI"

UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def origin(run: dg.DagsterRun) -> str:
    """Who started a run."""
    names = ("dagster/schedule_name", "dagster/sensor_name", "started_from")
    return next((run.tags[name] for name in names if run.tags.get(name)), "the Dagster UI")


def missing_tags(run: dg.DagsterRun, profile: str) -> dict[str, str]:
    """The tags that a run should have and has not: whoever starts one in the UI gives none."""
    wanted = {PROFILE: Path(profile).stem, REASON: BY_HAND}
    wanted |= {STYLE: run.tags[PARTITION]} if PARTITION in run.tags else {}
    return {name: value for name, value in wanted.items() if name not in run.tags}


def busy(instance: dg.DagsterInstance, store: Store, style: str) -> str | None:
    """Who works on a style, or is about to; None where nobody is."""
    for lock in (store.locks.style(style), store.locks.claim(style)):
        if is_held(lock):
            return f"in use by {holder(lock)}"
    active = instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY, tags={PARTITION: style}), limit=1)
    if not active:
        return None
    return f"run {active[0].run_id[:8]} of job {active[0].job_name} is {active[0].status.value.lower()}"


def in_words(error: Any) -> str:
    """The text of the exception that Dagster wrapped, after its class where the text was not written for people."""
    while error is not None and error.cause is not None and str(error.cls_name).startswith("Dagster"):
        error = error.cause
    if error is None:
        return "unknown error"
    kind, _, said = str(error.message).strip().partition(": ")
    for_people = kind.startswith(f"{PACKAGE_NAME}.") or kind == "ValueError"
    return said if said and for_people else f"{error.cls_name}: {said}".removesuffix(": ")
