"""The files of a model: their fingerprint, licence, weights and precision, and what loading them says."""

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import safe_open
from transformers.utils import logging as transformers_logging
from yaml import YAMLError

_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
CONFIGURATION = (".json", ".txt", ".model", ".jinja")
"""Ends of the names of configurations, vocabularies and chat templates."""
UNUSED_PARTS = {"safety_checker", "feature_extractor", "image_encoder"}


def fingerprint(folder: Path) -> str:
    """16 hexadecimal digits that depend on the bytes of weights, configuration and tokenizer, not on the place.

    A folder downloaded from the hub and a plain copy of it have the same fingerprint. Of a pipeline only its parts
    count, not what else lies in the folder, such as the card and the report of a published version.
    """
    whole = hashlib.sha256()
    parts = _parts(folder)
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        is_part = parts is None or inside.parts[0] in parts
        if (
            is_part
            and file.suffix in (".safetensors", *CONFIGURATION)
            and not inside.parts[0].startswith(".")
            and not is_stray(file)
        ):
            whole.update(f"{inside.as_posix()} {file_hash(file)}\n".encode())
    return whole.hexdigest()[:16]


def licence_of(folder: Path) -> str | None:
    """The licence in the front matter of a model's card, as the hub writes it; None without one."""
    from huggingface_hub import ModelCard

    file = folder / "README.md"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if not text.startswith("---"):
        return None
    try:
        licence = ModelCard(text).data.get("license")
    except (ValueError, YAMLError):  # front matter that cannot be read tells nothing
        return None
    return str(licence) if licence else None


def is_stray(file: Path) -> bool:
    """Whether a file holds another variant of weights (fp16, non_ema) than the one beside it, which is loaded."""
    name, weights, rest = file.name.partition(".safetensors")
    plain = name.partition(".")[0]
    return bool(weights) and plain != name and (file.parent / f"{plain}.safetensors{rest}").exists()


def weight_files(folder: Path) -> list[Path]:
    """The weights of a model's folder that are loaded, one file or its shards."""
    return [file for file in sorted(folder.glob("*.safetensors")) if not is_stray(file)]


def stored_dtype(file: Path) -> torch.dtype:
    """The precision that most numbers of a file are stored in."""
    counts = dict.fromkeys(_FLOATS, 0)
    with safe_open(file, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a dict
            about = tensors.get_slice(name)
            if about.get_dtype() in counts:
                counts[about.get_dtype()] += math.prod(about.get_shape())
    return _FLOATS[max(counts, key=lambda name: counts[name])]


def variant_of(part: Path) -> str | None:
    """The variant that the folder of a pipeline's part has instead of plain weights, such as fp16; None for plain."""
    names = [file.name.removesuffix(".safetensors").split(".") for file in weight_files(part)]
    return names[0][1] if names and len(names[0]) > 1 else None


def _parts(folder: Path) -> set[str] | None:
    """The names in the folder of a pipeline that belong to it; None for a model that is no pipeline."""
    index = folder / "model_index.json"
    if not index.is_file():
        return None
    return {index.name, *pipeline_parts(folder)}


def pipeline_parts(folder: Path) -> set[str]:
    """The names of a pipeline's parts, but for the safety checker and what it reads with."""
    named = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return {name for name, kind in named.items() if isinstance(kind, list) and kind[0]} - UNUSED_PARTS


def file_hash(file: Path) -> str:
    """The SHA-256 of a file's bytes. The hub's cache names large files by it, so those are not read again."""
    real = file.resolve()
    if real.parent.name == "blobs" and len(real.name) == 64:
        return real.name
    stat = real.stat()
    return _hash_of_unchanged(real, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hash_of_unchanged(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def quiet() -> None:
    """No progress bars for weights that load in a second: they would fill a run's log."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


@contextmanager
def only_errors(logger: str) -> Iterator[None]:
    """Silence a library's logger below errors while something harmless is done that it warns of."""
    quiet = logging.getLogger(logger)
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        yield
    finally:
        quiet.setLevel(level)
