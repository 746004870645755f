"""Training state on disk: a checkpoint is there whole or not at all, and half a file is noticed."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from fashion_pipeline.ml.files import file_hash

_TENSORS = "tensors.safetensors"
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training needs to go on after `step`."""

    step: int
    tensors: dict[str, torch.Tensor]
    """What learns, and the optimizer's moments."""
    state: dict[str, Any]
    """The rest, as JSON types."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint, kept: int) -> Path:
    """Write `folder`/step-00000000 under another name, rename it, then drop all but the newest `kept`."""
    target = folder / f"step-{checkpoint.step:08d}"
    fresh = folder / f".{target.name}.fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(checkpoint.tensors, fresh / _TENSORS)
    whole = {"step": checkpoint.step, "tensors_hash": file_hash(fresh / _TENSORS), **checkpoint.state}
    (fresh / _STATE).write_text(json.dumps(whole, indent=1), encoding="utf-8")
    for file in fresh.iterdir():
        _flush(file)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    for old in checkpoint_folders(folder)[:-kept]:
        shutil.rmtree(old)
    return target


def checkpoint_folders(folder: Path) -> list[Path]:
    """The checkpoints there are, oldest first."""
    return sorted(folder.glob("step-*"))


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a note on each newer one that is damaged."""
    notes: list[str] = []
    for candidate in reversed(checkpoint_folders(folder)):
        try:
            return _read(candidate), notes
        except (OSError, ValueError, KeyError) as error:
            notes.append(f"checkpoint {candidate} is damaged ({error}) and was skipped")
    return None, notes


def packed(tree: Any, name: str) -> tuple[dict[str, torch.Tensor], Any]:
    """Nested dicts and lists, such as an optimizer's state → their tensors by path, and the rest as JSON types."""
    if isinstance(tree, torch.Tensor):
        return {name: tree.detach().cpu().contiguous()}, {"tensor": name}
    if not isinstance(tree, dict | list | tuple):
        return {}, tree
    named = tree.items() if isinstance(tree, dict) else enumerate(tree)
    parts = [(key, *packed(value, f"{name}.{key}")) for key, value in named]
    tensors = {path: tensor for _, inside, _ in parts for path, tensor in inside.items()}
    rest = [[key, value] for key, _, value in parts] if isinstance(tree, dict) else [value for _, _, value in parts]
    return tensors, {"dict" if isinstance(tree, dict) else "list": rest}


def unpacked(tensors: Mapping[str, torch.Tensor], rest: Any) -> Any:
    """What `packed` took apart; tuples come back as lists."""
    if not isinstance(rest, dict):
        return rest
    if "tensor" in rest:
        return tensors[rest["tensor"]]
    if "dict" in rest:
        return {key: unpacked(tensors, value) for key, value in rest["dict"]}
    return [unpacked(tensors, value) for value in rest["list"]]


def _read(folder: Path) -> Checkpoint:
    state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    if file_hash(folder / _TENSORS) != state["tensors_hash"]:
        raise ValueError(f"{_TENSORS} is not what was written")
    return Checkpoint(state["step"], load_file(folder / _TENSORS), state)


def _flush(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
