"""Commands for versions: publish, go back, look, withdraw photos, trace, upload."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from fashion_pipeline import api
from fashion_pipeline.cli.console import Style, errors, out, print_json, show, show_or_say, warn
from fashion_pipeline.core.rows import Origin
from fashion_pipeline.store.versions import IN_USE, WAITS

Version = Annotated[str | None, typer.Option("--version", help="A version, as in `fashion-pipeline versions`.")]
SHOWN_PHOTOS = 20


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (publish, rollback, unpublish, versions, withdraw, trace, upload):
        app.command()(command)


def publish(style: Style, version: Version = None) -> None:
    """Put a version in use: the one named, or the one that waits for approval, or the newest if it is better."""
    with errors():
        published = api.publish(style, version)
    out.print(f"{published.reason[:1].upper()}{published.reason[1:]}", markup=False, soft_wrap=True)
    if published.folder:
        _warn_of_withdrawn(style, published.version)
    raise typer.Exit(0 if published.folder else 1)


def rollback(style: Style) -> None:
    """Go back to the version before the one in use. No run publishes the one taken back again."""
    with errors():
        now, before = api.rollback(style)
    out.print(f"version {now} is in use again; {before} was taken back", markup=False)
    _warn_of_withdrawn(style, now)


def unpublish(style: Style) -> None:
    """Take the version in use out of use, with none in its place. It stays on disk; no run publishes it again."""
    with errors():
        gone = api.unpublish(style)
    out.print(
        f"version {gone} is out of use and no other is in its place; fashion-pipeline publish --style {style} "
        f"--version {gone} brings it back, fashion-pipeline versions --style {style} --delete {gone} removes it",
        markup=False,
        soft_wrap=True,
    )


def versions(
    style: Style,
    delete: Annotated[str | None, typer.Option(help="Remove this version, which must not be in use.")] = None,
) -> None:
    """A style's versions: state, verdict, gain, what each costs on disk, and withdrawn photos that went into it."""
    with errors():
        if delete:
            out.print(f"freed {api.delete_version(style, delete) / 1e6:.1f} MB")
        rows = api.versions(style)
    shown = [
        {**row, "bytes": f"{row['bytes'] / 1e6:.1f}", "bytes of its own": f"{row['bytes of its own'] / 1e6:.1f}"}
        | {"judge gain": "" if row["judge gain"] is None else f"{row['judge gain']:+.3f}"}
        for row in rows
    ]
    names = {"bytes": "MB", "bytes of its own": "MB of its own"}
    if shown:
        show([{names.get(name, name): value for name, value in row.items()} for row in shown])
    else:
        out.print(f"no version of {escape(style)} was published yet")


def withdraw(
    photos: Annotated[list[str] | None, typer.Argument(help="Paths or ids. None: list what is stale already.")] = None,
    sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take photos out of the catalog for good, and list all that was made with them and must be made again.

    The next run of their style leaves them out, and their near-duplicates. The files stay where they are.
    """
    if photos and not sure:
        typer.confirm(f"Withdraw {len(photos)} photos for good? No later run uses them again.", abort=True)
    with errors():
        affected = api.withdraw(*photos) if photos else api.stale()
    _show_uses(affected)
    if affected:
        styles = sorted({use["style"] for use in affected})
        again = "; ".join(f"fashion-pipeline run --style {style}" for style in styles)
        out.print(f"stale until it is made again: {again}", markup=False, soft_wrap=True)
    for use in affected:
        if use["kind"] == "version":
            out.print(_what_to_do(use), markup=False, soft_wrap=True)


def _what_to_do(version: dict[str, Any]) -> str:
    """About a version behind which a withdrawn photo is."""
    style, name = version["style"], version["key"]
    remove = f"fashion-pipeline versions --style {style} --delete {name} removes it"
    subject = f"{style}: version {name} ({version['state']}) has {version['photos']} withdrawn ({version['how']})"
    if version["state"] == IN_USE:
        return (
            f"{subject} and stays in use: fashion-pipeline unpublish --style {style} takes it out of use now, or "
            f"fashion-pipeline rollback --style {style} goes back to the one before; then {remove}"
        )
    if version["state"] == WAITS:
        return f"{subject}: it cannot be approved any more, if it was trained on one; the next run takes its place"
    return f"{subject}: {remove}"


def trace(
    what: Annotated[str, typer.Argument(help="A version, or a photo by its path or id.")],
    style: Annotated[str | None, typer.Option("--style", "-s", help="Look for the version among this style's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """What is behind a version (photos, prompts, seeds, scores), or all that a photo went into."""
    with errors():
        traced = api.trace(what, style)
    if as_json:
        print_json(traced)
    elif "photo" in traced:
        show([traced["photo"]])
        _show_uses(traced["uses"])
    else:
        _show_version(traced)


def upload(
    style: Style,
    repository: Annotated[str, typer.Option("--to", help="A model repository on the Hugging Face hub: owner/name.")],
    version: Version = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files.")] = False,
    everything: Annotated[bool, typer.Option(help="The report and the trail too, which show your photos.")] = False,
) -> None:
    """Upload a version to a private repository of the Hugging Face hub, without the report and the trail."""
    with errors():
        files = api.upload(style, repository, version=version, dry_run=dry_run, everything=everything)
    show([{"file": name, "MB": f"{size / 1e6:.1f}"} for name, size in files])
    total = sum(size for _, size in files) / 1e6
    out.print(f"{'would upload' if dry_run else 'uploaded'} {total:.1f} MB to {escape(repository)}", soft_wrap=True)


def _warn_of_withdrawn(style: str, version: str) -> None:
    for row in api.versions(style):
        if row["version"] == version and row["withdrawn photos"]:
            warn(f"{row['withdrawn photos']} photos behind version {version} have been withdrawn")


def _show_uses(uses: list[dict[str, Any]]) -> None:
    if not uses:
        out.print("nothing was made with it")
        return
    names = ("style", "kind", "key", "how", "photos", "created")
    show([{name: use[name] for name in names} for use in uses])


def _show_version(found: dict[str, Any]) -> None:
    out.print(f"{found['style']} {found['version']}: {found['verdict']}. {found['reason']}", markup=False)
    show_or_say(found["prompts"][:5], "no prompt search behind it")
    photos = found["trained_on"]
    images = {each["id"] for each in photos}
    drawn = {each["id"] for each in photos if each["origin"] == Origin.SAMPLE}
    out.print(
        f"trained on {len(images)} images ({len(images - drawn)} photos and {len(drawn)} generated) with {len(photos)} "
        f"captions, evaluated on {len(found['evaluated_on'])} photos"
    )
    shown = [{"id": each["id"], "path": each.get("path", ""), "caption": each["caption"]} for each in photos]
    show(shown[:SHOWN_PHOTOS])
    if len(photos) > SHOWN_PHOTOS:
        out.print(f"… and {len(photos) - SHOWN_PHOTOS} more; --json has all, with seeds and scores")
