"""Faults of files and clock for one process or several, by a small library that is preloaded into them (faults.c)."""

import ctypes
import random
import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

KINDS = {
    "none": 1,
    "killed": 2,
    "disk full": 3,
    "read-only": 4,
    "read error": 5,
    "clock set back": 6,
}
"""Of a fault → what faults.c calls it; `none` only counts."""

DAY = 86_400
NEVER = 10**9

_SOURCE = Path(__file__).with_name("faults.c")
_COUNTERS = struct.Struct("ll")


@cache
def library() -> Path:
    """The compiled library. Raises RuntimeError without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("faults are planted by a library in C: install a compiler")
    built = Path(tempfile.mkdtemp(prefix="faults-")) / "libfaults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(_SOURCE), "-ldl"], check=True)
    return built


def preloaded() -> bool:
    """Whether this process can be given faults."""
    return hasattr(ctypes.CDLL(None), "fault_arm")


def arm(root: Path, kind: str, at: int = NEVER) -> None:
    """From now on the n-th event below a folder begins a fault, in this process."""
    plant = ctypes.CDLL(None).fault_arm
    plant.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    plant(str(root).encode(), KINDS[kind], at, DAY)


def counted() -> tuple[int, int]:
    """Changes and opens for reading since this process was armed."""
    look = ctypes.CDLL(None).fault_count
    look.argtypes, look.restype = [ctypes.c_int], ctypes.c_long
    return int(look(0)), int(look(1))


class Shared:
    """A fault for all processes that inherit an environment; they count together."""

    def __init__(self, folder: Path, root: Path, kind: str, at: int = NEVER) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "counters"
        self._file.write_bytes(bytes(_COUNTERS.size))
        self.environment = {
            "LD_PRELOAD": str(library()),
            "FAULT_ROOT": str(root),
            "FAULT_KIND": str(KINDS[kind]),
            "FAULT_AT": str(at),
            "FAULT_SECONDS": str(DAY),
            "FAULT_COUNTER": str(self._file),
        }

    def counted(self) -> tuple[int, int]:
        """Changes and opens for reading of all these processes."""
        changes, reads = _COUNTERS.unpack(self._file.read_bytes())
        return int(changes), int(reads)


def damage(root: Path, chosen: random.Random, *patterns: str) -> str:
    """Damage one file below a data root: cut off, emptied, a bit turned, or gone; returns which, and how.

    The file is replaced, not written to: other names of it, such as the base's, keep what they have.
    """
    found = sorted(
        {path for pattern in patterns for path in root.glob(pattern) if path.is_file() and path.stat().st_size}
    )
    if not found:
        return "nothing to damage"
    path, how = chosen.choice(found), chosen.choice(("cut off", "emptied", "a bit turned", "gone"))
    data = bytearray(path.read_bytes())
    if how == "cut off":
        data = data[: chosen.randrange(len(data))]
    elif how == "emptied":
        data = bytearray()
    elif how == "a bit turned":
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    path.unlink()
    if how != "gone":
        path.write_bytes(data)
    return f"{path.relative_to(root)} {how}"
