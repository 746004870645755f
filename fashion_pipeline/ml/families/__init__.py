"""Families of models, a file each: what differs between Stable Diffusion 1.x, XL and those to come."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from fashion_pipeline.ml.families.base import Family, Texts, read_json
from fashion_pipeline.ml.families.flux2 import Flux2Klein
from fashion_pipeline.ml.families.sd3 import StableDiffusion3
from fashion_pipeline.ml.families.sdxl import StableDiffusionXL
from fashion_pipeline.ml.families.stable_diffusion import StableDiffusion
from fashion_pipeline.ml.families.z_image import ZImage

__all__ = ["FAMILIES", "Family", "Texts", "family_of", "single_file_class"]

FAMILIES: dict[str, Callable[[Path], Family]] = {
    kind.pipeline_class.__name__: kind
    for kind in (StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux2Klein, ZImage)
}
"""Class that `model_index.json` names → family."""

_SDXL_ONLY = "conditioner.embedders.1."
"""Start of the names of a single file's second text encoder."""


def family_of(folder: Path) -> Family:
    """The family of the base in a folder. Raises ValueError that lists those known, or says what else the model is."""
    name = str(read_json(folder / "model_index.json").get("_class_name"))
    if name not in FAMILIES:
        known = ", ".join(f"{kind.title} ({cls})" for cls, kind in FAMILIES.items())  # type: ignore[attr-defined]
        raise ValueError(f"{folder} is a {name}, which is not known: name a base of {known}")
    return FAMILIES[name](folder)


def single_file_class(file: Path) -> Any:
    """The class of the pipeline in a single file, as ComfyUI and A1111 use it, by the names of its tensors."""
    with safe_open(file, "pt") as tensors:
        is_xl = any(name.startswith(_SDXL_ONLY) for name in tensors.keys())  # noqa: SIM118 - not a dict
    return (StableDiffusionXL if is_xl else StableDiffusion).pipeline_class
