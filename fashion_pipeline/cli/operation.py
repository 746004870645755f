"""Commands for daily operation: how everything stands, when styles are retrained, who is told, what may go."""

import json
from typing import Annotated, Any

import typer

from fashion_pipeline import api
from fashion_pipeline.cli.console import errors, megabytes, out, print_json, show, show_or_say


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (status, automation, alerts, clean):
        app.command()(command)


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    disk: Annotated[bool, typer.Option("--disk", help="Also what takes how much room, by style and table.")] = False,
) -> None:
    """How everything stands: styles and what changed, versions, runs under way or failed, next ticks, disk use."""
    with errors():
        state = api.status()
        if as_json:
            print_json(state)
            return
    show_or_say([_short(row) for row in state["styles"]], "no styles yet")
    show_or_say(state["runs"], "no run is under way, and none failed this week")
    out.print()
    show([{**row, "on": "on" if row["on"] else "off"} for row in state["ticks"]])
    total = sum(row["bytes"] for row in state["disk"])
    if disk:
        show([{**row, "bytes": megabytes(row["bytes"])} for row in state["disk"]])
    out.print(f"disk: {megabytes(total)}, of which {_largest(state['disk'])}", markup=False)


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """A style's row as a terminal has room for it."""
    published = row["published"] or (f"{row['waiting']} waits for approval" if row["waiting"] else "")
    changes = row["problem"] or row["changed"] or "nothing"
    day = (row["evaluated"] or "never")[:10]
    return {
        "style": row["style"],
        "photos": row["photos"],
        "evaluated": day,
        "decision": row["decision"],
        "published": published,
        "changed since": changes,
    }


def _largest(rows: list[dict[str, Any]]) -> str:
    """The three kinds of things that take most."""
    kinds: dict[str, int] = {}
    for row in rows:
        kinds[row["what"]] = kinds.get(row["what"], 0) + row["bytes"]
    largest = sorted(kinds.items(), key=lambda each: -each[1])[:3]
    return ", ".join(f"{what} {megabytes(size)}" for what, size in largest) or "nothing"


def clean(
    sure: Annotated[bool, typer.Option("--yes", help="Remove; without it, only say what would be removed.")] = False,
) -> None:
    """Remove superseded trainings, models, images, caches and pictures; without --yes only say which.

    The newest of everything and all that a published version needs stay.
    """
    with errors():
        leftovers = api.clean(dry_run=not sure)
    if leftovers:
        show([{"what": each.what, "why": each.why, "size": megabytes(each.size)} for each in leftovers])
    total = megabytes(sum(each.size for each in leftovers))
    out.print(f"freed {total}" if sure else f"could free {total}: fashion-pipeline clean --yes")


def automation(
    style: Annotated[
        str | None, typer.Option("--style", "-s", help="Change the rule of this style only, not of all.")
    ] = None,
    cron: Annotated[
        str | None,
        typer.Option(help="When to look for any reason to retrain, as `0 3 * * 1` (Mondays at three); empty: never."),
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Time zone of the crons, such as Europe/Paris.")] = None,
    new_photos: Annotated[
        int | None, typer.Option(min=0, help="New photos with which the sensor retrains at once; 0 for never.")
    ] = None,
    drift: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Level of the test of drift below which the sensor retrains; 0 for never."),
    ] = None,
) -> None:
    """Show, or change, when styles are retrained by themselves.

    Switch the schedule `retraining` and the sensor `new_photos` on in the Dagster UI, under Automation.
    """
    given = {"cron": cron, "timezone": timezone, "new_photos": new_photos, "drift": drift}
    with errors():
        if any(value is not None for value in given.values()):
            api.automate(style, cron=cron, timezone=timezone, new_photos=new_photos, drift=drift)
        show(api.automation())


def alerts(
    test: Annotated[bool, typer.Option("--test", help="Send a test by every way that is named.")] = False,
) -> None:
    """Who is told of runs that failed and of verdicts: the section [alerts] of settings.toml in the data root.

    Switch the sensors `failure_alerts` and `verdict_alerts` on in the Dagster UI, under Automation. The address of a
    webhook and the password of a mail server are secrets: FASHION_PIPELINE_WEBHOOK, FASHION_PIPELINE_SMTP_PASSWORD.
    """
    with errors():
        if test:
            out.print(f"told by {', '.join(api.try_alerts())}", markup=False)
            return
        for name, value in api.alerts().items():
            out.print(f"{name} = {json.dumps(value)}", markup=False, soft_wrap=True)
