"""Loading a StableDiffusionPipeline: safetensors only, no code from the hub, no safety checker."""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import AutoConfig, AutoTokenizer, CLIPTextModel

from fashion_pipeline.ml.sources import find_pipeline, only_errors, quiet, variant_of


def load_pipeline(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The pipeline of a folder on the CPU, without progress bar.

    The safety checker of Stable Diffusion v1.5 is left out: it paints a false positive (swimwear, bare shoulders)
    black, which would be scored as if the model had drawn it. Who shows images to the public puts a filter behind it.
    Raises ValueError that names the weights which the folder lacks: the libraries would fill them in at random.
    """
    quiet()
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder,
        unet=_whole(UNet2DConditionModel, folder / "unet", torch_dtype=dtype),
        vae=_whole(AutoencoderKL, folder / "vae", torch_dtype=dtype),
        text_encoder=_whole(CLIPTextModel, folder / "text_encoder", dtype=dtype),
        use_safetensors=True,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_autoencoder(folder: Path) -> Any:
    """The autoencoder of a pipeline's folder alone, in fp32 on the CPU."""
    quiet()
    return _whole(AutoencoderKL, folder / "vae", torch_dtype=torch.float32)


def _whole(kind: Any, part: Path, **options: Any) -> Any:
    """One part of a pipeline, all of whose weights were in its files."""
    with only_errors("transformers"), only_errors("diffusers"):  # what is missing is raised below
        model, loading = kind.from_pretrained(
            part, variant=variant_of(part), use_safetensors=True, output_loading_info=True, **options
        )
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(
            f"{part} has no weights for {', '.join(missing[:3])}, which would be left untrained: put a complete copy "
            "of the model there"
        )
    return model


def load_lora(pipeline: Any, lora: Path) -> None:
    """Load a LoRA file as stock diffusers does, without its warning that there is no part for the text encoder."""
    with only_errors("diffusers.loaders.lora_base"):
        pipeline.load_lora_weights(lora.parent, weight_name=lora.name, local_files_only=True)


def image_size(pipeline: Any) -> int:
    """Pixels of the side of the square images that the model was trained on."""
    return int(pipeline.unet.config.sample_size) * int(pipeline.vae_scale_factor)


def trained_as(folder: Path) -> tuple[int, str]:
    """The side in pixels that the model of a folder was trained on, and what it predicts, without loading it."""
    unet, vae, scheduler = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")
    )
    side = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    return side, scheduler.get("prediction_type", "epsilon")


def text_width(folder: Path) -> int:
    """Numbers of each token's embedding that the UNet of a folder reads: 768 for Stable Diffusion 1.x, 1024 for 2.x."""
    return int(json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))["cross_attention_dim"])


def smallest_side(folder: Path) -> int:
    """Pixels that the sides of an image must be multiples of: what autoencoder and UNet halve, they must double."""
    halvings = [
        len(json.loads((folder / part / "config.json").read_text(encoding="utf-8"))["block_out_channels"]) - 1
        for part in ("vae", "unet")
    ]
    return int(2 ** sum(halvings))


def unknown_words(source: str | Path, prompt: str) -> list[str]:
    """The words of a prompt that the text encoder cannot know: in other scripts, and taken apart into single bytes.

    A CLIP tokenizer falls back to bytes (Radford et al. 2019, section 2.2), so no word is refused; but one that takes
    as many tokens as it has characters or more was never learnt as a word.
    """
    tokenizer = AutoTokenizer.from_pretrained(find_pipeline(source), subfolder="tokenizer", trust_remote_code=False)

    def pieces(word: str) -> int:
        return len(tokenizer(word, add_special_tokens=False)["input_ids"])

    words = [word.strip(",.;:!?()") for word in prompt.split()]
    return [word for word in words if word and not word.isascii() and pieces(word) >= len(word)]


@lru_cache(maxsize=4)
def prompt_lengths(source: str | Path) -> tuple[Callable[[str], int], int]:
    """How many tokens a prompt takes, the two at its ends included, and how many the text encoder reads."""
    folder = find_pipeline(source)
    tokenizer = AutoTokenizer.from_pretrained(folder, subfolder="tokenizer", trust_remote_code=False)
    config = AutoConfig.from_pretrained(folder, subfolder="text_encoder", trust_remote_code=False)

    def count(prompt: str) -> int:
        return len(tokenizer(prompt, truncation=False, verbose=False)["input_ids"])

    return count, int(getattr(config, "max_position_embeddings", 77))
