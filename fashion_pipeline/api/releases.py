"""Versions: publishing, going back, withdrawing photos, and tracing what came from what."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fashion_pipeline.api.common import open_models, open_store
from fashion_pipeline.core.catalog.listing import style_slug
from fashion_pipeline.settings import enter, read_settings

if TYPE_CHECKING:
    from fashion_pipeline.stages.publishing.publishing import Published
    from fashion_pipeline.store.store import Store


def publish(style: str, version: str | None = None) -> "Published":
    """Put a version in use: the one that is named, or the one that waits for approval, or the newest model.

    A named version is put in use whatever its evaluation says: a person asked for it. The newest model is published
    only if its evaluation says so, and `Published.reason` tells. Raises StorageError for a version that is not there.
    """
    from fashion_pipeline.core.texts import text
    from fashion_pipeline.stages.publishing.publishing import Published, approve
    from fashion_pipeline.stages.publishing.publishing import publish as publish_newest

    store, style = open_store(), style_slug(style)
    with _at_work(store, style, "publishes"):
        if version is not None:
            folder = store.versions.promote(style, version)
            decision = store.versions.report(style, version).told()
            headline = decision.headline if decision else ""
            return Published(folder, version, text("publishing.published", version=version), headline)
        if store.versions.pointer(style).waiting:
            return approve(store, style)
        published = publish_newest(store, open_models(), style)
        return approve(store, style) if published.waits else published  # whoever asks for it approves


def rollback(style: str) -> tuple[str, str]:
    """Go back to the version before the one in use; returns its name, and that of the one that was in use.

    No run publishes the one that was taken back again; `publish` with its name does. Raises StorageError where there is
    none before it.
    """
    store, style = open_store(), style_slug(style)
    with _at_work(store, style, "rolls back"):
        return store.versions.roll_back(style)


def unpublish(style: str) -> str:
    """Take the version in use out of use, with none in its place; returns its name. It stays on disk.

    No run publishes it again; `publish` with its name does. Raises StorageError where none is in use.
    """
    store, style = open_store(), style_slug(style)
    with _at_work(store, style, "unpublishes"):
        return store.versions.unpublish(style)


def versions(style: str) -> list[dict[str, Any]]:
    """The versions of a style, oldest first: state, verdict, gain, the bytes that each costs, withdrawn photos.

    Raises StorageError for a style that is not known.
    """
    from fashion_pipeline.stages.publishing.versions import version_rows

    store, style = open_store(), style_slug(style)
    if style not in store.versions.styles():
        store.sources.source(style)  # raises for a style that nobody registered
    return version_rows(store, style)


def delete_version(style: str, version: str) -> int:
    """Remove a version that is not in use; returns the bytes that this gave back. Raises StorageError."""
    store, style = open_store(), style_slug(style)
    with _at_work(store, style, "removes a version"):
        return store.versions.delete(style, version)


def withdraw(*photos: str) -> list[dict[str, Any]]:
    """Take photos, given by path or id, out of the catalog for good; returns everything that was made with one.

    The next run leaves them and their near-duplicates out. What was made with them stays until it is made again, and is
    marked as stale in the Dagster UI, in `versions` and in `stale`; nothing that was trained on them is published any
    more, and a version with the `state` "in use" stays so until `unpublish`, `rollback` or a better one takes its
    place. Files are not touched. Raises StorageError for a photo that nobody knows, before any is withdrawn.
    """
    from fashion_pipeline.running.launching import opened_instance, report_stale
    from fashion_pipeline.stages.publishing.tracing import find_photos, uses

    store = open_store()
    by_style = find_photos(store, photos)
    for style, rows in by_style.items():
        store.withdrawals.add(style, rows)
    affected = [use for style, rows in by_style.items() for use in uses(store, style, {row["id"] for row in rows})]
    enter(read_settings())
    with opened_instance(store) as instance:
        report_stale(instance, affected)
    return [asdict(use) for use in affected]


def stale() -> list[dict[str, Any]]:
    """Every table, weight and version that a withdrawn photo went into and that is still there."""
    from fashion_pipeline.stages.publishing import tracing

    return [asdict(use) for use in tracing.stale(open_store())]


def trace(what: str, style: str | None = None) -> dict[str, Any]:
    """From a version back to its photos, prompts, seeds and scores; or from a photo on to all that used it.

    Returns `{"version": …}` or `{"photo": …, "uses": […]}`. Raises StorageError for what is neither.
    """
    from fashion_pipeline.stages.publishing.tracing import find_photos, trace_version, uses

    store = open_store()
    styles = [style_slug(style)] if style else store.versions.styles()
    for name in styles:
        if what in [folder.name for folder in store.versions.all(name)]:
            return trace_version(store, name, what)
    ((photo_style, (row,)),) = find_photos(store, [what]).items()
    withdrawn = row["id"] in store.withdrawals.ids()
    photo = {"id": row["id"], "path": row["path"], "style": photo_style, "split": row["split"], "withdrawn": withdrawn}
    return {"photo": photo, "uses": [asdict(use) for use in uses(store, photo_style, {row["id"]})]}


def upload(
    style: str, repository: str, *, version: str | None = None, dry_run: bool = False, everything: bool = False
) -> list[tuple[str, int]]:
    """Upload a version to a private repository of the Hugging Face hub; returns the files and their bytes.

    The report and the trail show photos and tell their paths: they stay here unless `everything` is asked for. A dry
    run only tells. Raises StorageError, or what huggingface_hub raises.
    """
    from fashion_pipeline.stages.publishing.uploading import files_to_upload, upload_folder
    from fashion_pipeline.store.errors import StorageError

    store, style = open_store(), style_slug(style)
    folder = store.versions.promoted_or(style, version)
    if folder is None:
        raise StorageError(f"no version of style {style!r} is published: run it first")
    names = files_to_upload(folder, everything=everything)
    if not dry_run:
        upload_folder(folder, repository, names)
    return [(name, (folder / name).stat().st_size) for name in names]


def _at_work(store: "Store", style: str, does: str) -> Any:
    return store.locks.working_on(style, f"a command that {does}")
