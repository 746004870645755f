"""What `fashion-pipeline ui` starts: one code server, the web server and the daemon, which end together."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_pipeline.running.launching import interruptions
from fashion_pipeline.settings import TEMPLATES

if TYPE_CHECKING:
    from dagster import DagsterInstance

LOOK_SECONDS = 0.5
STOPPING_SECONDS = 20.0


class ServiceError(RuntimeError):
    """One of them ended by itself; the message says which."""


def run_services(instance: "DagsterInstance", port: int) -> int:
    """Serve the UI and let schedules, sensors and the queue work until Ctrl-C; returns an exit code.

    Both use one code server, so that reloading the code location in the UI reloads it for the daemon too. Raises
    ServiceError where one of them ends by itself.
    """
    with ExitStack() as stack:
        workspace = stack.enter_context(_code_server(instance))
        commands = {
            "web server": ["-m", "fashion_pipeline.web.server", str(workspace), "--port", str(port)],
            "daemon": ["-m", "dagster._daemon", "run", "-w", str(workspace), "--log-level", "warning"],
        }
        running = {name: stack.enter_context(_process(command)) for name, command in commands.items()}
        with interruptions():
            try:
                while True:
                    time.sleep(LOOK_SECONDS)
                    for name, process in running.items():
                        if process.poll() is not None:
                            raise ServiceError(f"the {name} ended by itself, with exit code {process.returncode}")
            except KeyboardInterrupt:
                return 0


@contextmanager
def _code_server(instance: "DagsterInstance") -> Iterator[Path]:
    """A workspace file that leads to a code server."""
    import yaml
    from dagster._cli.proxy_server_manager import ProxyServerManager
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    target = WorkspaceFileTarget([str(TEMPLATES / "workspace.yaml")])
    with (
        tempfile.TemporaryDirectory() as folder,
        ProxyServerManager(instance, target, code_server_log_level="warning") as servers,
    ):
        file = Path(folder) / "workspace.yaml"
        file.write_text(yaml.dump({"load_from": servers.get_code_server_specs()}), encoding="utf-8")
        yield file


@contextmanager
def _process(arguments: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A Python process of its own group, so that Ctrl-C in the terminal reaches this one only; it is ended with it."""
    process = subprocess.Popen([sys.executable, *arguments], start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOPPING_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
