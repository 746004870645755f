"""Finding a model: a local folder, a single file that is unpacked once, or a hub id."""

import hashlib
import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from diffusers import DiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HOME
from safetensors import SafetensorError, safe_open

from fashion_pipeline.ml.families import single_file_class
from fashion_pipeline.ml.files import CONFIGURATION, file_hash, stored_dtype

_SAYS_V = re.compile(r"parameterization:\s*[\"']?v\b")


def find_pipeline(source: str | Path) -> Path:
    """The folder of a pipeline: `source` itself, what a single file was unpacked to, or a download.

    Raises FileNotFoundError for a folder or file that is not there, ValueError for a file that is no such model.
    """
    if str(source).endswith(".safetensors"):
        return _unpacked(Path(source))
    folder = _local(source, "model_index.json", "the folder of a pipeline")
    return folder or Path(
        DiffusionPipeline.download(str(source), use_safetensors=True, safety_checker=None, feature_extractor=None)
    )


def _unpacked(file: Path) -> Path:
    """The folder that a single file, as ComfyUI and A1111 use it, was written out to: once, beside the hub's cache.

    Its configuration and tokenizer are those of a folder of the same name beside the file, if there is one, else of
    Stable Diffusion v1.5 or XL from the hub. It predicts v where a tensor `v_pred`, the header or a `.yaml` beside says
    so.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: restore it, or name another model")
    beside, predicts_v = file.with_suffix(""), _predicts_v(file)
    folder = Path(HF_HOME) / "fashion-pipeline" / _unpacked_name(file, beside, predicts_v)
    if not (folder / "model_index.json").is_file():
        options = {"config": str(beside)} if (beside / "model_index.json").is_file() else {}
        try:
            pipeline = single_file_class(file).from_single_file(
                str(file), safety_checker=None, dtype=stored_dtype(file), **options
            )
        except (SingleFileComponentError, SafetensorError, KeyError, RuntimeError, TypeError) as error:
            message = str(error).strip().splitlines()[0]
            raise ValueError(f"{file} holds no Stable Diffusion model ({message}): name another one") from error
        if predicts_v:
            v_prediction = {"prediction_type": "v_prediction"}
            pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, **v_prediction)
        fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        pipeline.save_pretrained(fresh, safe_serialization=True)
        try:
            fresh.rename(folder)
        except OSError:
            if not (folder / "model_index.json").is_file():
                raise
            shutil.rmtree(fresh)  # another process was faster
    return folder


def _unpacked_name(file: Path, beside: Path, predicts_v: bool) -> str:
    """Names all that the unpacked folder is made from: the file, the configuration beside it, what it predicts."""
    configuration = [each for each in sorted(beside.rglob("*")) if each.suffix in CONFIGURATION]
    parts = [f"{each.relative_to(beside).as_posix()} {file_hash(each)}" for each in configuration]
    text = "\n".join([file_hash(file), str(stored_dtype(file)), *parts, *(["v"] if predicts_v else [])])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _predicts_v(file: Path) -> bool:
    """Whether a single file, or a configuration as A1111 reads it beside the file, says that the model predicts v."""
    with suppress(SafetensorError), safe_open(file, "pt") as tensors:
        predicts = dict(tensors.metadata() or {}).get("modelspec.prediction_type", "")
        if "v_pred" in tensors.keys() or predicts.startswith("v"):  # noqa: SIM118 - not a dict
            return True
    yaml = file.with_suffix(".yaml")
    return yaml.is_file() and bool(_SAYS_V.search(yaml.read_text(encoding="utf-8", errors="replace")))


def find_model(source: str | Path) -> Path:
    """The folder of a transformers model, downloaded if `source` is a hub id. Raises FileNotFoundError."""
    folder = _local(source, "config.json", "a model folder")
    patterns = [f"*{end}" for end in (".safetensors", *CONFIGURATION)]
    return folder or Path(snapshot_download(str(source), allow_patterns=patterns, ignore_patterns=["*/*"]))


def _local(source: str | Path, needed: str, what: str) -> Path | None:
    """`source` as a folder, or None if it can only be a hub id (owner/name)."""
    folder = Path(source)
    if (folder / needed).is_file():
        return folder
    if folder.exists() or isinstance(source, Path) or str(source).count("/") != 1:
        raise FileNotFoundError(f"{source} is not {what}: it has no {needed}. Give a complete folder or a hub id.")
    return None
