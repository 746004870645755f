"""What there is to say of the versions of a style."""

from typing import Any

from fashion_pipeline.core.names import EVALUATION_REPORT
from fashion_pipeline.stages.publishing.tracing import stale
from fashion_pipeline.store.storage.files import freed, read_json, size
from fashion_pipeline.store.store import Store

_PLAIN = {"model": "specialised", "prompt": "plain", "measure": "judge", "split": "dev"}
_OVER = {"model": "original", "prompt": "plain"}


def version_rows(store: Store, style: str) -> list[dict[str, Any]]:
    """The versions, oldest first: state, verdict, gain by the judge on dev, bytes, and withdrawn photos behind each.

    `bytes of its own` are those that would be free without the version: weights that also lie in a record, in another
    version or in the base are not counted.
    """
    pointer = store.versions.pointer(style)
    old = {use.key: use.photos for use in stale(store) if (use.style, use.kind) == (style, "version")}
    rows = []
    for folder in store.versions.all(style):
        evaluation = store.versions.part(style, folder.name, EVALUATION_REPORT)
        report = read_json(evaluation, f"{evaluation} is missing: the version is not whole")
        gains = [g for g in report.get("gains", ()) if g["against"] == _OVER and _PLAIN.items() <= g.items()]
        rows.append(
            {
                "version": folder.name,
                "created": store.versions.created(folder),
                "state": pointer.state(folder.name),
                "verdict": report["verdict"],
                "judge gain": gains[0]["mean"] if gains else None,
                "bytes": size(folder),
                "bytes of its own": freed(folder),
                "withdrawn photos": old.get(folder.name, 0),
            }
        )
    return rows
