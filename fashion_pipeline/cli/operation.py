"""Commands for daily operation: when styles are retrained by themselves."""

import json
from typing import Annotated

import typer

from fashion_pipeline import api
from fashion_pipeline.cli.console import errors, out, table


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (automation, alerts):
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
