"""What the doctor looks at: versions, storage, device and models, each with what to do where something is missing."""

import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fashion_pipeline.settings import Settings, SettingsError, read_profile

PACKAGES = ("dagster", "dagster-webserver", "torch", "diffusers", "transformers", "peft", "pyarrow", "duckdb")
ENOUGH_DISK = 5e9
"""Bytes that one style's samples, checkpoints and model may take with Stable Diffusion v1.5."""

Finding = tuple[str, bool, str, str]
"""Name, whether it is well, what was found, how to mend it."""


def examine(settings: Settings, profile: str) -> Iterator[Finding]:
    """All findings, cheap ones first."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield "python", sys.version_info >= (3, 11), python, "install Python 3.11 or newer"
    for package in PACKAGES:
        yield _package(package)
    yield from _storage(settings)
    yield _device(settings)
    yield from _models(profile)


def _package(name: str) -> Finding:
    try:
        return name, True, version(name), ""
    except PackageNotFoundError:
        return name, False, "missing", "run make setup"


def _storage(settings: Settings) -> Iterator[Finding]:
    probe = settings.data / ".doctor"
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
        yield "data root", True, f"{settings.data} can be written", ""
    except OSError as error:
        yield "data root", False, f"{settings.data}: {error.strerror}", "make it writable or set FASHION_PIPELINE_DATA"
        return
    free = shutil.disk_usage(settings.data).free
    yield "disk", free > ENOUGH_DISK, f"{free / 1e9:.0f} GB free", f"free {ENOUGH_DISK / 1e9:.0f} GB or more"


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
    marks = {"generator": "model_index.json", "encoder": "config.json", "judge": "config.json"}
    for role, mark in marks.items():
        yield _model(role, str(getattr(profile, role)), mark)
    yield "vocabulary", profile.vocabulary.is_file(), str(profile.vocabulary), "restore the file or name another one"


def _model(role: str, source: str, mark: str) -> Finding:
    folder = Path(source)
    if folder.is_absolute():
        mend = f"{folder} is incomplete ({mark} is missing): download the model again"
        return role, (folder / mark).is_file(), source, mend
    from huggingface_hub import try_to_load_from_cache

    cached = isinstance(try_to_load_from_cache(source, mark), str)
    mend = f"it is downloaded at first use; or: hf download {source}, or name a local folder in a profile file"
    return role, cached, f"{source} ({'in the cache' if cached else 'not downloaded yet'})", mend
