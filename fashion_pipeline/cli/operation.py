"""Commands for daily operation: when styles are retrained by themselves."""

from typing import Annotated

import typer

from fashion_pipeline import api
from fashion_pipeline.cli.console import errors, out, table


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (automation,):
        app.command()(command)


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
        out.print(table(api.automation()))
