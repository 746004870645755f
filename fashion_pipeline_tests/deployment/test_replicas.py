"""Two code servers behind one name: when the one that answered is gone, the other one does."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from fashion_pipeline.running.launching import LOCATION
from fashion_pipeline.settings import Settings

PROGRAM = str(Path(sys.executable).with_name("dagster"))


@dataclass
class Service:
    """Takes each connection to one of some ports of this machine, in turn, as a Kubernetes service does."""

    ports: list[int]
    taken: list[int] = field(default_factory=list)
    """To which port each connection went."""

    @contextmanager
    def listening(self) -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=self._accept, args=[server], daemon=True).start()
            yield server.getsockname()[1]

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                caller, _ = server.accept()
                if (answers := self._connected()) is None:
                    caller.close()
                    continue
                for one, other in ((caller, answers), (answers, caller)):
                    threading.Thread(target=_hand_over, args=[one, other], daemon=True).start()

    def _connected(self) -> socket.socket | None:
        for _ in self.ports:
            port = self.ports[len(self.taken) % len(self.ports)]
            self.taken.append(port)
            with suppress(OSError):
                return socket.create_connection(("127.0.0.1", port))
        return None


def _hand_over(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    for each in (one, other):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def code_server(port: int, settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    words = ["code-server", "start", "-m", "fashion_pipeline.definitions", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [PROGRAM, *words],
        env=os.environ | settings.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_a_sensor_is_asked_and_answers_when_the_code_server_that_did_is_gone(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data", profile="embedded", device="cpu", precision="auto")
    settings.dagster_home.mkdir(parents=True)
    service = Service(free_ports(2))
    with (
        dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance,
        code_server(service.ports[0], settings) as first,
        code_server(service.ports[1], settings) as second,
        service.listening() as port,
    ):
        instance.get_runs(limit=1)
        until = time.monotonic() + 90
        for each in service.ports:
            while socket.socket().connect_ex(("127.0.0.1", each)):
                assert time.monotonic() < until, "a code server did not start"
                time.sleep(0.2)
        target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name=LOCATION)
        with WorkspaceProcessContext(instance, target) as process:

            def ask() -> str:
                location = process.create_request_context().get_code_location(LOCATION)
                (repository,) = location.get_repositories().values()
                asked = location.get_sensor_execution_data(
                    instance=instance,
                    repository_handle=repository.handle,
                    name="new_photos",
                    last_tick_completion_time=None,
                    last_run_key=None,
                    cursor=None,
                    log_key=None,
                    last_sensor_start_time=None,
                )
                return str(asked.skip_message)

            assert ask() == "there are no photos yet"
            answered = service.taken[-1]
            os.killpg((first, second)[service.ports.index(answered)].pid, signal.SIGKILL)
            time.sleep(0.5)
            assert ask() == "there are no photos yet"
            assert service.taken[-1] != answered
