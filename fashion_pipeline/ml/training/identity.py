"""What tells one training from another, so that none is continued or reused by mistake."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft

from fashion_pipeline.core.names import TRAINING_RESULT
from fashion_pipeline.core.training.recipe import DEFAULTS, Recipe
from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.encoders import encoder_fingerprint
from fashion_pipeline.ml.files import file_hash, fingerprint
from fashion_pipeline.ml.sources import find_model
from fashion_pipeline.ml.training.results import TrainingError, TrainingJob, TrainingPair, TrainingResult

_HOW = {"batch_size", "offload"}
"""Of how the original draws: what prior images, drawn one by one in fp32, do not depend on."""


def identity_of(folder: Path, job: TrainingJob, device: Device) -> dict[str, Any]:
    """All that determines the weights and the log, by content: where the files lie does not matter.

    It names a training's folder (`key_of`) and is what is compared before one is continued or reused.
    """
    return {
        **job.recipe.identity(),
        "base": fingerprint(folder),
        "pairs": _hash_of_pairs(job.pairs),
        "held_out": _hash_of_pairs(job.held_out),
        "validation": _validation(job),
        "drawing": job.drawing.model_dump(mode="json", exclude=_HOW) if job.recipe.prior_images else None,
        **training_device(job.recipe, device).computing(),
        **({} if job.recipe.method == "full" else {"peft": peft.__version__}),
    }


def key_of(identity: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that stand for an identity.

    Knobs that are as usual do not count, so that one which a later release adds changes no key.
    """
    knobs = Recipe.among(identity).differing()
    identity = {n: v for n, v in identity.items() if n not in Recipe.model_fields or n in knobs}
    return hashlib.sha256(json.dumps([DEFAULTS, identity], sort_keys=True).encode()).hexdigest()[:16]


def key_of_before(identity: Mapping[str, Any]) -> str:
    """The same as versions up to 0.1.0 made it, which did not tell the device and peft: what they trained is found."""
    counted = {name: value for name, value in identity.items() if name not in ("device", "peft")}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]


def training_device(config: Recipe, device: Device) -> Device:
    """The device with the precision that the recipe asks for; auto is the device's own."""
    return device if config.precision == "auto" else replace(device, precision=config.precision)


def finished_training(output: Path, identity: dict[str, Any]) -> TrainingResult | None:
    """The result that a folder already holds, if any. Raises TrainingError if it is another training's."""
    if not (output / TRAINING_RESULT).is_file():
        return None
    try:
        result = TrainingResult.load(output / TRAINING_RESULT)
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{output / TRAINING_RESULT} is damaged ({error}): delete it to train on from there"
        ) from error
    require_same(output, result.identity, identity)
    return result


def require_same(output: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise TrainingError that names what changed, if anything did."""
    if changed := _differences(old, new):
        raise TrainingError(f"{output} holds another training ({changed}): choose another output, or delete that one")


def _validation(job: TrainingJob) -> str | None:
    """A hash of what the weights are chosen by; None where nothing is."""
    if job.validation is None or not job.recipe.sample_every:
        return None
    drawn = [vars(request) for request in job.validation.requests]
    encoder = encoder_fingerprint(find_model(job.validation.encoder), whole=job.validation.whole)
    parts = [encoder, _hash_of_pairs(job.validation.photos), drawn]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _hash_of_pairs(pairs: Sequence[TrainingPair]) -> str:
    """Of what the images are and their captions, in order."""
    return hashlib.sha256(json.dumps([[_image(pair), pair.caption] for pair in pairs]).encode()).hexdigest()[:16]


def _image(pair: TrainingPair) -> str:
    """What the image is; its name where it is known by nothing else."""
    file = Path(pair.path)
    return pair.id or (file_hash(file) if file.is_file() else pair.path)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two identities, in words; empty if nothing does."""
    old, new = ({**Recipe.among(each).identity(), **each} for each in (old, new))  # knobs that were not there yet
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in changed)
