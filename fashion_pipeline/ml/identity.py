"""What tells one training from another, so that none is continued or reused by mistake."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.recipes import FinetuneConfig, TrainingError, TrainingPair, TrainingResult
from fashion_pipeline.ml.sources import file_hash, fingerprint

RESULT_FILE = "result.json"
"""Marks an output folder as finished."""


def identity_of(
    folder: Path,
    pairs: Sequence[TrainingPair],
    held_out: Sequence[TrainingPair],
    config: FinetuneConfig,
    device: Device,
) -> dict[str, Any]:
    """All that determines the weights and the log. Precision auto is bf16 where the device has it, else fp32."""
    chosen = "bf16" if device.precision == "bf16" else "fp32"
    return {
        **config.identity(),
        "precision": config.precision if config.precision != "auto" else chosen,
        "base": fingerprint(folder),
        "pairs": _hash_of_pairs(pairs),
        "held_out": _hash_of_pairs(held_out),
    }


def finished_training(output: Path, identity: dict[str, Any]) -> TrainingResult | None:
    """The result that a folder already holds, if any. Raises TrainingError if it is another training's."""
    if not (output / RESULT_FILE).is_file():
        return None
    result = TrainingResult.load(output / RESULT_FILE)
    require_same(output, result.identity, identity)
    return result


def require_same(output: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise TrainingError that names what changed, if anything did."""
    if changed := _differences(old, new):
        raise TrainingError(f"{output} holds another training ({changed}): choose another output, or delete that one")


def _hash_of_pairs(pairs: Sequence[TrainingPair]) -> str:
    """Of captions, paths and, where a path is a file, its bytes."""
    rows = [[p.path, p.caption, file_hash(Path(p.path)) if Path(p.path).is_file() else ""] for p in pairs]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two identities, in words; empty if nothing does."""
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in changed)
