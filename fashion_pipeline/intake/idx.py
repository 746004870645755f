"""The IDX format of MNIST and Fashion-MNIST: big-endian header, then unsigned bytes, plain or gzipped."""

import gzip
import struct
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 1 << 30
"""Largest unpacked file that is read."""

_reading = threading.Lock()


class IdxError(Exception):
    """An IDX file cannot be read; the text says why and how to mend it."""


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of an IDX file, read-only: (n, rows, columns) for images, (n,) for labels. Kept for the next call."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise IdxError(f"cannot be read ({error.strerror}): check the path") from error
    with _reading:
        return _read(path, changed)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> NDArray[np.uint8]:
    """`changed` is part of the cache's key, so that a replaced file is read again."""
    data = _unpacked(path)
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise IdxError("not an IDX file of bytes: it must start with 00 00 08; download it again")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise IdxError("cut off in its header: download it again")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    expected = int(np.prod(shape, dtype=object))
    if len(data) - start != expected:
        raise IdxError(f"holds {len(data) - start} bytes where its header promises {expected}: download it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except Exception as error:  # gzip raises OSError, EOFError or zlib.error
        raise IdxError(f"cannot be unpacked ({error}): download it again") from error
    if len(data) > MAX_BYTES:
        raise IdxError(f"larger than {MAX_BYTES >> 20} MiB when unpacked: split it")
    return data
