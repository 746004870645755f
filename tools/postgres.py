"""A PostgreSQL server of its own for a test or a trial: in a temporary folder, on 127.0.0.1, gone afterwards.

It needs the server's programs (Debian: `apt-get install postgresql`); nothing of another server is touched.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = ("postgres", "nobody")
"""Users to run the server as where we are root, which PostgreSQL refuses to be."""

WAIT_SECONDS = 60.0


def programs() -> Path | None:
    """The folder of initdb and postgres; None where there is no PostgreSQL."""
    found = [Path(path).parent for path in (shutil.which("initdb"), shutil.which("postgres")) if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of an empty database of a fresh server. Raises FileNotFoundError where there is no PostgreSQL."""
    folder = programs()
    if folder is None:
        raise FileNotFoundError("there are no initdb and postgres: install PostgreSQL")
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        root, user = Path(name), _user()
        password, port = secrets.token_hex(16), _free_port()
        (root / "password").write_text(password)
        if user:
            for path in (root, root / "password"):
                shutil.chown(path, user)
        asked = {"user": user, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, "cwd": root}
        initialise = [folder / "initdb", "-D", root / "data", "-U", "dagster", "-A", "scram-sha-256"]
        subprocess.run([*initialise, f"--pwfile={root / 'password'}"], check=True, capture_output=True, **asked)
        listen = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={root}", "-c", "fsync=off"]
        serve = [folder / "postgres", "-D", root / "data", "-p", str(port), *listen]
        with (root / "log").open("wb") as log:
            server = subprocess.Popen(serve, stdout=log, stderr=log, **asked)
        try:
            _wait(port, server, root / "log")
            yield f"postgresql+psycopg2://dagster:{password}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # ends connections; SIGTERM would wait for them
            server.wait(WAIT_SECONDS)


def _wait(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0 and b"ready to accept" in log.read_bytes():
                return
        time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-500:]}")


def _user() -> str | None:
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in NOBODY if name in known)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
