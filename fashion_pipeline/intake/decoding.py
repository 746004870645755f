"""Decoding photos from anywhere in processes of their own, so that none of them takes the run down."""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from queue import LifoQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_pipeline.intake.decoder import SECONDS, too_much
from fashion_pipeline.intake.photos import PhotoError

AT_ONCE = min(4, os.cpu_count() or 1)
"""Photos decoded at a time."""

PATIENCE = 10.0 * SECONDS
"""Seconds until an answer, when the machine is busy or a disk is slow."""

_COMMAND = [sys.executable, "-m", "fashion_pipeline.intake.decoder"]
_TRIES = 3
_INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "LC_CTYPE")
"""All that a decoder is told of the environment: no secret is among it."""
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Inspected:
    """What a catalog needs of a photo."""

    id: str
    """The hash of the bytes that were decoded."""
    width: int
    height: int
    bytes: int
    print: tuple[int, NDArray[np.uint8]]
    """Perceptual hash and (16, 16, 3) thumbnail."""
    note: str = ""
    """What a person should know, though the photo is used."""


class Decoders:
    """Processes that decode. They start when they are needed, and end by themselves when they are not."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._idle: LifoQueue[subprocess.Popen[bytes] | None] = LifoQueue()
        self._one_large_at_a_time = threading.Lock()
        for _ in range(at_once):
            self._idle.put(None)
        self.owner = os.getpid()

    def inspect(self, location: str) -> Inspected:
        """Decode a photo, bounded in time and memory; may be called from several threads. Raises PhotoError.

        A large one waits until no other large one is decoded: each may take a gigabyte for a moment.
        """
        answer = self._ask(location, large=False)
        if "large" in answer:
            with self._one_large_at_a_time:
                answer = self._ask(location, large=True)
        if "fault" in answer:
            raise PhotoError(answer["fault"])
        thumbnail = np.frombuffer(bytes.fromhex(answer["thumbnail"]), np.uint8).reshape(16, 16, 3)
        size = (answer["width"], answer["height"], answer["bytes"])
        return Inspected(answer["id"], *size, (answer["hash"], thumbnail), answer["note"])

    def close(self) -> None:
        """End those that wait for work."""
        for _ in range(self._idle.qsize()):
            if (process := self._idle.get()) is not None:
                _end(process)
            self._idle.put(None)

    def _ask(self, location: str, large: bool) -> dict[str, Any]:
        process = self._idle.get()
        try:
            for _ in range(_TRIES):
                if process is None or process.poll() is not None:
                    process = _start()
                answer = _answer(process, {"location": location, "large": large})
                if answer is not None:
                    return answer
                ended = _end(process)
                if ended != 0:  # else it went home just before it was asked
                    break
            return {"fault": _died(ended)}
        finally:
            self._idle.put(process)


_known: Decoders | None = None


def decoders() -> Decoders:
    """The decoders of this process; a process that was forked has its own."""
    global _known
    if _known is None or _known.owner != os.getpid():
        _known = Decoders()
        atexit.register(_known.close)
    return _known


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        _COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _INHERITED if name in os.environ} | _ENVIRONMENT,
        start_new_session=True,  # Ctrl-C is for the run
    )


def _answer(process: "subprocess.Popen[bytes]", request: dict[str, Any]) -> dict[str, Any] | None:
    """What a decoder says; None where it ended instead, or said nothing for too long."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    until = time.monotonic() + PATIENCE
    said = bytearray()
    while not said.endswith(b"\n"):
        if not select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
            process.kill()
            return None
        if not (part := os.read(process.stdout.fileno(), 1 << 16)):
            return None
        said += part
    return dict(json.loads(said))


def _end(process: "subprocess.Popen[bytes]") -> int:
    """Let a decoder go; returns its exit code, negative for a signal."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
    return process.wait()


def _died(code: int) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return too_much("time or memory", f"{SECONDS} seconds and what this machine has")
    return f"it makes the decoder crash (exit code {code}): export it as JPEG, or leave it out"
