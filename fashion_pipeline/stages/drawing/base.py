"""What is asked of a profile's generator without drawing with it: what it reads, its licence, what fits it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fashion_pipeline.stages.drawing.models import ModelError, Models

DENOISERS = ("unet", "transformer")
"""What the part of a pipeline that is trained is called; asked where loading a model library would take too long."""


def denoiser_bytes(generator: str) -> int:
    """Bytes of a generator's denoiser, which each version has its own of; 0 where the model is not here yet."""
    files = [file for part in DENOISERS for file in (Path(generator) / part).glob("*.safetensors")]
    return sum(file.stat().st_size for file in files if file.name.count(".") == 1)


def licence(models: Models) -> str | None:
    """The licence that the generator's own card tells, as the hub writes it; None where it tells none."""
    from fashion_pipeline.ml.files import licence_of
    from fashion_pipeline.ml.sources import find_pipeline

    with models.named("generator"):
        return licence_of(find_pipeline(models.profile.generator))


def prompt_fits(models: Models) -> Callable[[str], bool]:
    """A function that tells whether the generator's text encoder reads a prompt whole."""
    from fashion_pipeline.ml.pipelines import prompt_lengths

    with models.named("generator"):
        count, limit = prompt_lengths(models.profile.generator)
    return lambda prompt: count(prompt) <= limit


def unknown_words(models: Models, prompt: str, folder: Path | None = None) -> list[str]:
    """The words of a prompt that the generator's text encoder cannot know."""
    from fashion_pipeline.ml.pipelines import unknown_words

    with models.named("generator", folder):
        return unknown_words(folder or models.profile.generator, prompt)


def require_base(models: Models, made_of: Mapping[str, Any], what: str) -> None:
    """Raise ModelError where `what` was made with another base than the profile's generator is now.

    `made_of` is the identity of the training behind it.
    """
    base = made_of.get("base")
    if base is not None and base != (now := models.fingerprint("generator")):
        raise ModelError(
            f"{what} was trained on the base {base}, but the generator of profile {models.profile.name!r} is now "
            f"{now}: materialise lora_weights again, or run it with the profile that it was trained with"
        )


def require_lora(models: Models, lora: Path) -> None:
    """Raise ModelError for a LoRA file that cannot be read, or does not fit the profile's generator."""
    from fashion_pipeline.ml.adapters.additions import AdapterError, MisfitError
    from fashion_pipeline.ml.training.exports.exporting import LEAST_EFFECT, effect_of

    if not lora.is_file():
        raise ModelError(f"there is no file {lora}: name a LoRA in diffusers', kohya's or peft's format")
    models.fingerprint("generator")
    mend = f"name one that was trained on {models.profile.generator}, or a profile with its base"
    try:
        effect = effect_of(models.profile.generator, lora)
    except AdapterError as error:
        message = f"{lora} cannot be judged on the generator of profile {models.profile.name!r}: {error}"
        raise ModelError(f"{message}: {mend}" if isinstance(error, MisfitError) else message) from error
    if effect < LEAST_EFFECT:
        raise ModelError(f"{lora} changes nothing in the generator of profile {models.profile.name!r}: {mend}")
