"""The Dagster UI with the pages of the data root, as one web server: `python -m fashion_pipeline.web.server`."""

import argparse
import sys
from pathlib import Path
from typing import Any

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.version import __version__
from dagster_webserver.webserver import DagsterWebserver
from starlette.routing import BaseRoute

from fashion_pipeline.settings import read_settings
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.store import Store
from fashion_pipeline.web.guard import Guard
from fashion_pipeline.web.pages import Pages

STATEMENT_MILLISECONDS, RECYCLE_SECONDS, OVERFLOW = 15_000, 3_600, 20
"""As dagster-webserver itself uses its database."""

POLL_MILLISECONDS = 2_000
"""Between two looks of the UI at assets that are being made."""


class Webserver(DagsterWebserver[WorkspaceProcessContext, Any]):
    """Dagster's web server with further addresses."""

    pages: list[BaseRoute]

    def build_routes(self) -> list[BaseRoute]:
        """Ours first: Dagster's last one answers everything."""
        return [*self.pages, *super().build_routes()]  # type: ignore[no-untyped-call]


def serve(workspace: Path, port: int) -> None:
    """Serve on 127.0.0.1 until the process is interrupted."""
    settings = read_settings()
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(STATEMENT_MILLISECONDS, RECYCLE_SECONDS, OVERFLOW)
        target = WorkspaceFileTarget([str(workspace)])
        with WorkspaceProcessContext(instance, target, version=__version__, code_server_log_level="warning") as context:
            server = Webserver(context, live_data_poll_rate=POLL_MILLISECONDS)
            server.pages = Pages(Store(settings.data), Models.of(settings)).routes()
            app = Guard(server.create_asgi_app(), settings.hosts)
            uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def main(argv: list[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args(argv)
    serve(given.workspace, given.port)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
