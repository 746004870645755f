"""A complete pipeline as a folder: what was trained is written, what it shares with its base is linked."""

import json
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fashion_pipeline.intake.linking import LINKED, link
from fashion_pipeline.ml.families import Family
from fashion_pipeline.ml.files import CONFIGURATION, is_stray, pipeline_parts, weight_files
from fashion_pipeline.ml.training.methods import Parts

_LEVEL = "text_model."


def write_pipeline(folder: Path, base: Path, parts: Parts) -> None:
    """Write a folder that stock diffusers loads by `from_pretrained`: the trained parts, the others those of the base.

    The base's own files are taken, not what a library would write today, so that older versions read them as well.
    """
    folder.mkdir(parents=True)
    for part in sorted(pipeline_parts(base)):
        trained = parts.named().get(part)
        if trained is None:
            _take_over(base / part, folder / part)
        else:
            trained.save_pretrained(folder / part, safe_serialization=True)
            _forget_place(folder / part / "config.json")
            _name_as_before(base / part, folder / part)
    _write_index(base, folder, parts.family)
    for part in filter(parts.family.has, parts.family.text_encoders):
        _load_in_single_precision(folder / part / "config.json")
    for part in filter(parts.family.has, parts.family.tokenizers):
        _spell_out(folder / part)


def _name_as_before(base: Path, written: Path) -> None:
    """Weights under the names that the base's file has: transformers 5 drops a level of CLIP's, older ones need it."""
    with safe_open(weight_files(base)[0], "pt") as tensors:
        if not any(name.startswith(_LEVEL) for name in tensors.keys()):  # noqa: SIM118 - not a dict
            return
    for file in weight_files(written):
        tensors = load_file(file)
        save_file({f"{_LEVEL}{name.removeprefix(_LEVEL)}": t for name, t in tensors.items()}, file, {"format": "pt"})


def _forget_place(file: Path) -> None:
    """Diffusers notes from where a part was loaded, which is a path of this machine."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _take_over(part: Path, target: Path) -> None:
    target.mkdir()
    for file in sorted(part.iterdir()):
        if is_stray(file):
            continue
        if file.suffix == LINKED:
            link(file, target / _plain(file.name))
        elif file.suffix in CONFIGURATION:
            shutil.copyfile(file, target / file.name)


def _plain(name: str) -> str:
    """`model.fp16.safetensors` → `model.safetensors`: the only weights there are need no variant."""
    return f"{name.removesuffix(LINKED).partition('.')[0]}{LINKED}"


def _write_index(base: Path, folder: Path, family: Family) -> None:
    index = json.loads((base / "model_index.json").read_text(encoding="utf-8"))
    index |= {name: [None, None] if value is None else value for name, value in family.left_out.items()}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _load_in_single_precision(file: Path) -> None:
    """Without a `torch_dtype`, diffusers loads its models as fp32 and transformers as stored: the two would not fit."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config = {name: value for name, value in config.items() if name not in ("dtype", "torch_dtype")}
    single = {"dtype": "float32", "torch_dtype": "float32"}  # what transformers 5 and 4 call it
    file.write_text(json.dumps(config | single, indent=2) + "\n", encoding="utf-8")


def _spell_out(tokenizer: Path) -> None:
    """Write vocabulary and merges beside a `tokenizer.json`, which alone transformers 4 cannot read."""
    whole = tokenizer / "tokenizer.json"
    if (tokenizer / "vocab.json").exists() or not whole.exists():
        return
    model = json.loads(whole.read_text(encoding="utf-8"))["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (tokenizer / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    (tokenizer / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
