"""What is asked of a base by its source: the pipeline itself, the length of a prompt, words that it cannot know."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from fashion_pipeline.ml.families import family_of
from fashion_pipeline.ml.files import only_errors
from fashion_pipeline.ml.sources import find_pipeline


def load_pipeline(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The pipeline of a folder on the CPU. Raises ValueError for a family that is not known, or missing weights."""
    return family_of(folder).load(dtype)


def load_lora(pipeline: Any, lora: Path) -> None:
    """Load a LoRA file as stock diffusers does, without its warning that there is no part for the text encoder."""
    with only_errors("diffusers.loaders.lora_base"):
        pipeline.load_lora_weights(lora.parent, weight_name=lora.name, local_files_only=True)


def unknown_words(source: str | Path, prompt: str) -> list[str]:
    """The words of a prompt that the text encoder cannot know: in other scripts, and taken apart into single bytes.

    A CLIP tokenizer falls back to bytes (Radford et al. 2019, section 2.2), so no word is refused; but one that takes
    as many tokens as it has characters or more was never learnt as a word.
    """
    tokenizer = family_of(find_pipeline(source)).tokenizer()

    def pieces(word: str) -> int:
        return len(tokenizer(word, add_special_tokens=False)["input_ids"])

    words = [word.strip(",.;:!?()") for word in prompt.split()]
    return [word for word in words if word and not word.isascii() and pieces(word) >= len(word)]


@lru_cache(maxsize=4)
def prompt_lengths(source: str | Path) -> tuple[Callable[[str], int], int]:
    """How many tokens a prompt takes, the two at its ends included, and how many the text encoder reads."""
    return family_of(find_pipeline(source)).text_lengths()
