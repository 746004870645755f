"""What listens, listens on 127.0.0.1, and answers to its own names only."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from fashion_pipeline.settings import Settings
from fashion_pipeline.stages.training.process import command
from fashion_pipeline.web.guard import Guard
from fashion_pipeline_tests.stages.training.test_process import order

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
WAIT = 400.0


def listening(process: int) -> set[str]:
    """The addresses that a process and all that it started listen on."""
    found = set()
    top = psutil.Process(process)
    for each in [top, *top.children(recursive=True)]:
        try:
            connections = each.net_connections("inet")
        except psutil.Error:
            continue
        udp = [c for c in connections if c.type == socket.SOCK_DGRAM and not c.raddr]
        found |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN} | {c.laddr.ip for c in udp}
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Process and port of `fashion-pipeline ui`, once it answers."""
    settings, port = Settings(tmp_path_factory.mktemp("ui"), "embedded", "cpu", "fp32"), free_port()
    program = [sys.executable, "-m", "fashion_pipeline.cli", "ui", "--port", str(port)]
    process = subprocess.Popen(program, env=os.environ | settings.environment(), start_new_session=True)
    until = time.monotonic() + WAIT
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5)
            break
        except OSError:
            assert time.monotonic() < until and process.poll() is None, "the UI did not start"
            time.sleep(0.3)
    yield process.pid, port
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def test_the_ui_with_daemon_and_code_server_listens_on_this_machine_only(ui: tuple[int, int]) -> None:
    process, _ = ui
    found = listening(process)
    assert "127.0.0.1" in found and found <= LOOPBACK


def asked(port: int, path: str, data: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_ui_refuses_other_names_and_pages_of_other_servers(ui: tuple[int, int]) -> None:
    _, port = ui
    query = json.dumps({"query": "{ version }"}).encode()
    kind = {"Content-Type": "application/json"}
    assert asked(port, "/graphql", query, **kind) == 200
    assert asked(port, "/graphql", query, **kind, Origin=f"http://127.0.0.1:{port}") == 200
    assert asked(port, "/graphql", query, **kind, Origin="http://evil.example") == 403
    assert asked(port, "/graphql", query, **kind, Origin="null") == 403
    assert asked(port, "/graphql?query={version}") == 403, "Dagster would carry out what stands in an address"
    for path in ("/", "/fashion/", "/graphql?query={version}"):
        assert asked(port, path, Host="evil.example") == 403
        assert asked(port, path, Host=f"127.0.0.1.evil.example:{port}") == 403


@pytest.mark.thorough
def test_several_processes_of_a_training_meet_on_this_machine_only(tmp_path: Path) -> None:
    _, file = order(tmp_path, processes=2, steps=2)
    process = subprocess.Popen(command(file, processes=2), stdout=subprocess.DEVNULL, start_new_session=True)
    found: set[str] = set()
    try:
        until = time.monotonic() + WAIT
        while process.poll() is None and time.monotonic() < until:
            found |= listening(process.pid)
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == 0
    assert found and found <= LOOPBACK


# The guard itself


async def answer(request: object) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


def client(host: str, *names: str) -> TestClient:
    app = Starlette(routes=[Route("/", answer, methods=["GET", "POST"]), WebSocketRoute("/ws", talk)])
    return TestClient(Guard(app, names), base_url=f"http://{host}")  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost", "LOCALHOST:3000", "[::1]:3000", "fashion.example"])
def test_own_names_are_answered(host: str) -> None:
    own = client(host, "Fashion.example")
    assert own.get("/").text == "hello"
    assert own.post("/", headers={"Origin": f"http://{host}".lower()}).status_code == 200
    with own.websocket_connect(f"ws://{host}/ws", headers={"Origin": f"https://{host}"}) as connection:
        assert connection.receive_text() == "hello"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.2", "[::1", "a@evil.example"])
def test_other_names_are_not(host: str) -> None:
    refused = client("127.0.0.1").get("/", headers={"Host": host})
    assert refused.status_code == 403 and "FASHION_PIPELINE_HOSTS" in refused.text


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:4000", "file://", "http://localhost"]
)
def test_pages_of_other_servers_may_neither_ask_nor_connect(origin: str) -> None:
    own = client("127.0.0.1:3000")
    assert own.post("/", headers={"Origin": origin}).status_code == 403
    place = "ws://127.0.0.1:3000/ws"
    with pytest.raises(WebSocketDisconnect), own.websocket_connect(place, headers={"Origin": origin}):
        pass


ADDRESS = "/graphql?query=mutation{x}"
IMAGE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize("headers", [{}, IMAGE, LINK, {"Accept": "text/html"}, {"Sec-Fetch-Site": "same-origin"}])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("path", [ADDRESS, "/proxied/graphql/?a=b&query=", "/graphql?%71uery=mutation%7Bx%7D"])
def test_no_query_is_taken_from_an_address(headers: dict[str, str], method: str, path: str) -> None:
    assert client("127.0.0.1:3000").request(method, path, headers=headers).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_nothing_is_loaded_into_the_page_of_another_site(site: str) -> None:
    own = client("127.0.0.1:3000")
    for dest in ("image", "iframe", "script", "empty"):
        assert own.get("/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Dest": dest}).status_code == 403
    assert own.get("/", headers=IMAGE | {"Sec-Fetch-Site": site}).status_code == 403
    framed = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    assert own.get("/", headers=framed | {"Sec-Fetch-Site": site}).status_code == 403
    assert own.post("/", headers=LINK | {"Sec-Fetch-Site": site}).status_code == 403
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "websocket"}
    place = "ws://127.0.0.1:3000/ws"
    with pytest.raises(WebSocketDisconnect), own.websocket_connect(place, headers=headers):
        pass


def test_a_person_may_follow_a_link_to_a_page_and_type_an_address() -> None:
    own = client("127.0.0.1:3000")
    for headers in (LINK, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin"}):
        assert own.get("/", headers=headers).text == "hello"
