"""What several benchmarks do: time work, tell a gain, and write a result that appears whole."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fashion_pipeline.core.evaluation.statistics import Interval


def timed(work: Callable[[], object]) -> float:
    """Seconds that some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def told(gain: Interval | None) -> str:
    """A gain with its interval; nothing where there is none."""
    if gain is None:
        return ""
    span = "" if gain.low is None else f" ({gain.low:+.3f} to {gain.high:+.3f})"
    return f"{gain.mean:+.3f}{span}".replace("-", "−")


def write_json(file: Path, content: Mapping[str, object]) -> None:
    """Write a file that is never half there."""
    fresh = file.with_name(f".{file.name}.fresh")
    fresh.write_text(json.dumps(content), encoding="utf-8")
    fresh.replace(file)
