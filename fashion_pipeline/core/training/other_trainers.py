"""A recipe in the words of other trainers, for images and captions that lie beside it."""

import json
from collections.abc import Callable
from typing import Any

from fashion_pipeline.core.training.recipe import FINDS_ITS_RATE, Recipe

IMAGES = "images"
"""Folder of the images, beside what is written here."""

_KOHYA_SCRIPTS = {
    "Stable Diffusion 1.x and 2.x": "train_network.py",
    "Stable Diffusion XL": "sdxl_train_network.py",
}
_DIFFUSERS_SCRIPTS = {
    "Stable Diffusion 1.x and 2.x": "train_text_to_image_lora.py",
    "Stable Diffusion XL": "train_text_to_image_lora_sdxl.py",
}
"""Title of a family → the script that trains a LoRA on it."""
_KOHYA_OPTIMIZERS = {
    "adamw": "AdamW",
    "adamw8bit": "AdamW8bit",
    "adafactor": "AdaFactor",
    FINDS_ITS_RATE: "Prodigy",
}


def kohya(recipe: Recipe, family: str, base: str, side: int) -> dict[str, str]:
    """File → content, for kohya-ss/sd-scripts: its configuration, that of the data set, and the command.

    Raises ValueError for a family or a method that it does not train.
    """
    script = _script(_KOHYA_SCRIPTS, family, "kohya-ss/sd-scripts")
    _require_lora(recipe, "kohya-ss/sd-scripts", ("lora", "loha", "lokr"))
    ours = recipe.method != "lora" or recipe.dora
    network: dict[str, Any] = {"conv_dim": recipe.rank, "conv_alpha": recipe.alpha} if _is_wide(recipe) else {}
    network |= {"algo": "lora" if recipe.dora else recipe.method, "dora_wd": recipe.dora} if ours else {}
    network |= {"factor": recipe.lokr_factor} if recipe.method == "lokr" else {}
    arguments: dict[str, Any] = {
        "pretrained_model_name_or_path": base,
        "dataset_config": "dataset.toml",
        "output_dir": "output",
        "output_name": "style",
        "save_model_as": "safetensors",
        "network_module": "lycoris.kohya" if ours else "networks.lora",
        "network_dim": recipe.rank,
        "network_alpha": recipe.alpha,
        "network_args": [f"{name}={value}" for name, value in network.items()],
        "network_train_unet_only": not recipe.text_learning_rate,
        "unet_lr": recipe.learning_rate,
        "text_encoder_lr": recipe.text_learning_rate,
        "learning_rate": recipe.learning_rate,
        "max_train_steps": recipe.steps,
        "lr_scheduler": "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule,
        "lr_scheduler_power": recipe.schedule_power,
        "lr_warmup_steps": recipe.warmup_steps,
        "optimizer_type": _KOHYA_OPTIMIZERS[recipe.optimizer],
        "optimizer_args": [f"weight_decay={recipe.weight_decay}"],
        "max_grad_norm": recipe.gradient_clip,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "min_snr_gamma": recipe.min_snr_gamma,
        "noise_offset": recipe.noise_offset,
        "mixed_precision": _mixed(recipe),
        "seed": recipe.seed % 2**32,
        "cache_latents": True,
        "sdpa": True,
    }
    if not recipe.min_snr_gamma:
        del arguments["min_snr_gamma"]
    data_set = {
        "resolution": recipe.resolution or side,
        "batch_size": recipe.batch_size,
        "enable_bucket": recipe.fit == "buckets",
    }
    subset = {
        "image_dir": IMAGES,
        "caption_extension": ".txt",
        "num_repeats": 1,
        "flip_aug": recipe.horizontal_flip,
        "shuffle_caption": recipe.tag_shuffle,
        "keep_tokens": 1,
        "caption_dropout_rate": recipe.caption_dropout,
        "caption_tag_dropout_rate": recipe.tag_dropout,
    }
    return {
        "config.toml": _toml(arguments),
        "dataset.toml": f"[[datasets]]\n{_toml(data_set)}\n[[datasets.subsets]]\n{_toml(subset)}",
        "train.sh": _command(f"accelerate launch {script} --config_file config.toml"),
    }


def diffusers(recipe: Recipe, family: str, base: str, side: int) -> dict[str, str]:
    """File → content, for diffusers' own script of LoRA on texts and images: the command.

    Raises ValueError for a family or a method that it does not train.
    """
    script = _script(_DIFFUSERS_SCRIPTS, family, "diffusers' script")
    _require_lora(recipe, "diffusers' script", ("lora",))
    arguments: dict[str, Any] = {
        "pretrained_model_name_or_path": base,
        "train_data_dir": IMAGES,
        "caption_column": "text",
        "resolution": recipe.resolution or side,
        "rank": recipe.rank,
        "train_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "max_train_steps": recipe.steps,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler": "constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule,
        "lr_warmup_steps": recipe.warmup_steps,
        "adam_weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.gradient_clip,
        "noise_offset": recipe.noise_offset,
        "mixed_precision": _mixed(recipe),
        "seed": recipe.seed % 2**32,
        "output_dir": "output",
    }
    arguments |= {"snr_gamma": recipe.min_snr_gamma} if recipe.min_snr_gamma else {}
    switches = {
        "random_flip": recipe.horizontal_flip,
        "center_crop": recipe.fit == "crop",
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "use_8bit_adam": recipe.optimizer == "adamw8bit",
        "train_text_encoder": bool(recipe.text_learning_rate) and family == "Stable Diffusion XL",
    }
    words = [f"--{name}={_quoted(value)}" for name, value in arguments.items()]
    words += [f"--{name}" for name, wanted in switches.items() if wanted]
    return {"train.sh": _command(" \\\n  ".join([f"accelerate launch {script}", *words]))}


TRAINERS: dict[str, Callable[[Recipe, str, str, int], dict[str, str]]] = {
    "kohya": kohya,
    "diffusers": diffusers,
    "imagefolder": lambda recipe, family, base, side: {},
}
"""Name → recipe, title of the family, base and side of its images in pixels → files beside the images."""


def _script(scripts: dict[str, str], family: str, trainer: str) -> str:
    if family not in scripts:
        raise ValueError(f"{trainer} trains no LoRA on {family}, but on {', '.join(scripts)}: use --to imagefolder")
    return scripts[family]


def _require_lora(recipe: Recipe, trainer: str, methods: tuple[str, ...]) -> None:
    if recipe.method not in methods or (recipe.dora and len(methods) == 1):
        method = "dora" if recipe.dora else recipe.method
        raise ValueError(f"the recipe's method is {method}, which {trainer} does not train: use --to imagefolder")


def _is_wide(recipe: Recipe) -> bool:
    return bool({"feed_forward", "convolution"} & set(recipe.layers))


def _mixed(recipe: Recipe) -> str:
    return {"auto": "bf16", "fp32": "no"}.get(recipe.precision, recipe.precision)


def _toml(values: dict[str, Any]) -> str:
    """Strings, numbers, truth values and lists of them are written alike in JSON and in TOML."""
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())


def _command(line: str) -> str:
    return f"#!/bin/sh\n# In the trainer's environment, its script here or with its path.\n{line}\n"


def _quoted(value: Any) -> str:
    text = str(value)
    return "'" + text.replace("'", "'\\''") + "'" if isinstance(value, str) else text
