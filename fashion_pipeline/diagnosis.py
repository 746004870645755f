"""What the doctor looks at: versions, storage, device and models, each with what to do where something is missing."""

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fashion_pipeline.core.weights import is_whole
from fashion_pipeline.settings import Settings, SettingsError, read_profile
from fashion_pipeline.stages.drawing.base import denoiser_bytes
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.storage.files import Files

PACKAGES = ("dagster", "dagster-webserver", "torch", "diffusers", "transformers", "peft", "pyarrow", "duckdb")
SPARE = 1e9
"""Bytes for images, embeddings, caches and checkpoints of one style, beside its model."""
LARGE_UNET = 3.5e9
"""Bytes of a UNet that is not here yet: that of Stable Diffusion v1.5 in single precision."""

ANSWER_SECONDS = 5.0

Finding = tuple[str, bool, str, str]
"""Name, whether it is well, what was found, how to mend it."""


def examine(settings: Settings, profile: str) -> Iterator[Finding]:
    """All findings, cheap ones first."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield "python", sys.version_info >= (3, 11), python, "install Python 3.11 or newer"
    for package in PACKAGES:
        yield _package(package)
    yield from _storage(settings, profile)
    if settings.url:
        yield _object_storage(settings)
    if settings.ray:
        yield _cluster(settings)
    if settings.kubernetes:
        yield _kubernetes(settings)
    yield _device(settings)
    yield from _models(profile)


def _package(name: str) -> Finding:
    try:
        return name, True, version(name), ""
    except PackageNotFoundError:
        return name, False, "missing", "run make setup"


def _storage(settings: Settings, profile: str) -> Iterator[Finding]:
    there = next(folder for folder in (settings.data, *settings.data.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        state = "cannot be written" if there.is_dir() else "is no folder"
        yield "data root", False, f"{there} {state}", "make it a folder with room, or set FASHION_PIPELINE_DATA"
        return
    state = "can be written" if there == settings.data else "can be made"
    yield "data root", True, f"{settings.data} {state}", ""
    free, style = shutil.disk_usage(there).free, _style_cost(profile)
    state = (
        f"{free / 1e9:.0f} GB free; a style takes about {style / 1e9:.1f} GB, each retraining as much again until clean"
    )
    yield "disk", free > style, state, f"free {style / 1e9:.1f} GB or more"


def _object_storage(settings: Settings) -> Finding:
    try:
        files = Files(settings.data)
        if files.remote is not None:
            with files.remote.lease("doctor", "the doctor", "a doctor", once=True):
                pass
    except StorageError as error:
        return "object storage", False, str(error), "correct FASHION_PIPELINE_DATA or its credentials"
    return "object storage", True, f"{settings.url} can be read and written, {settings.data} is the copy", ""


def _cluster(settings: Settings) -> Finding:
    """Whether the Ray cluster answers; one of this machine is started by the run that wants it."""
    try:
        import ray

        from fashion_pipeline.resources.ray import LOCAL
    except ImportError as error:
        return "Ray cluster", False, str(error), "pip install 'fashion-pipeline[ray]', or unset FASHION_PIPELINE_RAY"
    if settings.ray == LOCAL:
        return "Ray cluster", True, "of this machine alone", ""
    try:
        host, colon, port = settings.ray.removeprefix("ray://").rpartition(":")
        if colon and port.isdecimal():  # Ray itself would wait for minutes
            socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
        ray.init(settings.ray, logging_level="ERROR", log_to_driver=False)
        resources = ray.cluster_resources()
        ray.shutdown()
    except Exception as error:  # Ray raises whatever its connection trips over
        message = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        return "Ray cluster", False, f"{settings.ray}: {message}", "start it, or correct FASHION_PIPELINE_RAY"
    message = f"{settings.ray}: {resources.get('CPU', 0):.0f} processors, {resources.get('GPU', 0):.0f} cards"
    return "Ray cluster", True, message, ""


def _kubernetes(settings: Settings) -> Finding:
    """Whether the pods of steps are described as Kubernetes wants it, and jobs of runs could be started."""
    name, pods = "Kubernetes", Path(settings.kubernetes)
    try:
        import kubernetes
        from dagster import DagsterInstance

        from fashion_pipeline.defs.automation.jobs import POOLS
        from fashion_pipeline.running.kubernetes import launcher_of, read_pods
    except ImportError as error:
        mend = "pip install 'fashion-pipeline[kubernetes]', or unset FASHION_PIPELINE_KUBERNETES"
        return name, False, str(error), mend
    try:
        read_pods(pods, POOLS)
        with DagsterInstance.from_config(str(settings.dagster_home)) as instance:
            namespace = launcher_of(instance).job_namespace
            jobs = kubernetes.client.BatchV1Api()
            jobs.list_namespaced_job(namespace, limit=1, _request_timeout=ANSWER_SECONDS)
    except SettingsError as error:
        return name, False, str(error), "correct the file, or dagster.yaml"
    except Exception as error:  # the client raises whatever its connection trips over
        message = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        return name, False, f"its API: {message}", "let the service account start jobs in the namespace"
    return name, True, f"runs are jobs in the namespace {namespace}, steps are pods as in {pods}", ""


def _style_cost(name: str) -> float:
    """Bytes of a style: its denoiser, since all else of its model is shared with the base, and what else it needs."""
    try:
        weights = denoiser_bytes(read_profile(name).generator)
    except SettingsError:
        return SPARE
    return (weights or LARGE_UNET) + (SPARE if not weights or weights > SPARE else weights)


def _device(settings: Settings) -> Finding:
    from fashion_pipeline.ml.devices import pick_device

    try:
        device = pick_device(settings.device, settings.precision, keep=settings.data / "machine")
    except ValueError as error:
        return "device", False, str(error), "set FASHION_PIPELINE_DEVICE and FASHION_PIPELINE_PRECISION to auto"
    return (
        "device",
        True,
        f"{device.description}, {device.precision}, {device.layout}, {device.attention} attention",
        "",
    )


def _models(name: str) -> Iterator[Finding]:
    try:
        profile = read_profile(name)
    except SettingsError as error:
        yield "profile", False, name, str(error)
        return
    yield "profile", True, profile.name, ""
    for role in ("generator", "encoder", "judge"):
        yield _model(role, str(getattr(profile, role)))
    yield _vocabulary(profile.vocabulary)


def _vocabulary(path: Path) -> Finding:
    from fashion_pipeline.core.features.attributes import VocabularyError, read_vocabulary

    try:
        facets = read_vocabulary(path).facets
    except VocabularyError as error:
        return "vocabulary", False, str(path), str(error)
    sizes = ", ".join(f"{facet} {len(values)}" for facet, values in facets.items())
    return "vocabulary", True, f"{path} ({sizes})", ""


_MODEL = ("config.json", "model.safetensors")
_INDEX = "model_index.json"
_WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
    "text_encoder_3": "model.safetensors",
}
"""Part of a pipeline → its weights."""
_USUAL = ("unet", "vae", "text_encoder")
"""The parts of a pipeline that is not here yet, as far as one can tell."""
_READ_TEXTS = ("clip", "siglip", "siglip2")
"""Kinds of models that can be the encoder."""
_SMALL_FILES = ("*/*.json", "*/*.txt")


def _model(role: str, source: str) -> Finding:
    """Whether a model is there with its weights; those in shards or in another variant count by their index or name."""
    folder = Path(source)
    wanted = _pipeline_files(folder / _INDEX) if role == "generator" else _MODEL
    if folder.suffix == ".safetensors":
        return role, folder.is_file() and is_whole(folder), source, f"{folder} is not there, or cut off: restore it"
    if folder.is_absolute():
        missing = [name for name in wanted if not (folder / name).is_file() and not _otherwise(folder / name)]
        if missing:
            return role, False, source, f"{folder} is incomplete ({', '.join(missing)}): download it again"
        cut_off = [str(file.relative_to(folder)) for file in folder.rglob("*.safetensors") if not is_whole(file)]
        if cut_off:
            return role, False, source, f"{folder} has damaged weights ({', '.join(cut_off)}): download them again"
        if role == "encoder" and (kind := _kind(folder)) not in _READ_TEXTS:
            mend = "name a CLIPModel or SiglipModel, which reads texts as well"
            return role, False, source, f"{source} is a {kind}, not a CLIP: {mend}"
        return role, True, source, ""
    from huggingface_hub import try_to_load_from_cache

    def cached(name: str) -> bool:
        return any(isinstance(try_to_load_from_cache(source, each), str) for each in (name, f"{name}.index.json"))

    if role == "generator" and isinstance(index := try_to_load_from_cache(source, _INDEX), str):
        wanted = _pipeline_files(Path(index))
    there = all(cached(name) for name in wanted)
    files = " ".join(f"'{name}'" for name in (*wanted, *(_SMALL_FILES if role == "generator" else ("*.json", "*.txt"))))
    mend = f"it is downloaded at first use; or: hf download {source} --include {files}; or name a local folder"
    return role, there, f"{source} ({'in the cache' if there else 'not downloaded yet'})", mend


def _pipeline_files(index: Path) -> tuple[str, ...]:
    """The files that a pipeline must have, by its index where that can be read."""
    try:
        named = json.loads(index.read_text(encoding="utf-8"))
        parts = [part for part in _WEIGHTS if isinstance(named.get(part), list) and named[part][0]]
    except (OSError, ValueError, AttributeError, IndexError):
        parts = []
    return (_INDEX, *(f"{part}/{_WEIGHTS[part]}" for part in parts or _USUAL))


def _kind(folder: Path) -> str:
    """The kind of a model by its configuration."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return "model with a damaged config.json"


def _otherwise(file: Path) -> bool:
    """Whether weights lie there in shards or as another variant."""
    stem, _, suffix = file.name.partition(".")
    return suffix == "safetensors" and any(file.parent.glob(f"{stem}*.safetensors"))
