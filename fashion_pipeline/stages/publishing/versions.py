"""What there is to say of the versions of a style."""

from typing import Any

from fashion_pipeline.core.evaluation.verdicts import AFTER, BEFORE, SPLIT
from fashion_pipeline.core.rows import Role
from fashion_pipeline.stages.publishing.tracing import stale
from fashion_pipeline.store.storage.files import freed, size
from fashion_pipeline.store.store import Store


def version_rows(store: Store, style: str) -> list[dict[str, Any]]:
    """The versions, oldest first: state, verdict, gain by the judge on dev, bytes, and withdrawn photos behind each.

    `bytes of its own` are those that would be free without the version: weights that also lie in a record, in another
    version or in the base are not counted.
    """
    pointer = store.versions.pointer(style)
    old = {use.key: use.photos for use in stale(store) if (use.style, use.kind) == (style, "version")}
    rows = []
    for folder in store.versions.all(style):
        report = store.versions.report(style, folder.name)
        training = (AFTER, BEFORE, Role.JUDGE, SPLIT)
        gains = [g.mean for g in report.gains if (g.condition, g.against, g.measure, g.split) == training]
        rows.append(
            {
                "version": folder.name,
                "created": store.versions.created(folder),
                "state": pointer.state(folder.name),
                "verdict": report.verdict,
                "judge gain": gains[0] if gains else None,
                "bytes": size(folder),
                "bytes of its own": freed(folder),
                "withdrawn photos": old.get(folder.name, 0),
            }
        )
    return rows
