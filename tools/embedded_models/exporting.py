"""Half-precision folders that the stock libraries load, replaced as a whole so that no reader meets half of one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from transformers import PreTrainedModel

from tools.embedded_models.training import Averaged


class Saved(Protocol):
    """A model, processor, tokenizer or pipeline of the stock libraries."""

    def save_pretrained(self, folder: Path) -> object: ...


def export(folder: Path, model: PreTrainedModel, average: Averaged, companions: list[Saved]) -> None:
    """Write `model` with averaged weights in half precision, and what loads beside it, into `folder`."""
    model.load_state_dict(average.shadow)
    model = model.to(torch.float16, memory_format=torch.contiguous_format)

    def write(target: Path) -> None:
        for part in (model, *companions):
            part.save_pretrained(target)

    replace_folder(folder, write)


def load_in_single_precision(folder: Path) -> None:
    """Let transformers models load as fp32 although they are stored as fp16, in which a CPU computes slowly or not."""
    for file in folder.rglob("config.json"):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace('"dtype": "float16"', '"dtype": "float32"'), encoding="utf-8")


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, keep the model card and pictures of the old one, and swap the two."""
    fresh, old = folder.with_name(f".{folder.name}.fresh"), folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    load_in_single_precision(fresh)
    for kept in [*folder.glob("README.md"), *folder.glob("*.png")]:
        shutil.copy2(kept, fresh / kept.name)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
