"""What the families have in common that read a prompt by a language model, as a message in its chat template."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from transformers import Qwen3ForCausalLM

from fashion_pipeline.ml.families.base import Family

SIDE = 1024
"""Pixels that these bases were made for; their configurations do not say."""


class LanguageModelFamily(Family):
    """A transformer taught by flow matching that reads the hidden states of a Qwen3, which is not trained."""

    denoiser = "transformer"
    text_encoders: ClassVar[Mapping[str, Any]] = {"text_encoder": Qwen3ForCausalLM}
    tokenizers = ("tokenizer",)
    thinking: ClassVar[bool]
    """How the pipeline fills in the template."""
    tokens: ClassVar[int] = 512
    """Tokens that the pipeline reads of a message, those of the template included."""
    probe_tokens: ClassVar[int] = 32

    @property
    def side(self) -> int:
        """As published."""
        return SIDE

    @property
    def probe_side(self) -> int:
        """A small image: weights are compared, not pictures."""
        return 16

    @property
    def predicts(self) -> str:
        """The velocity from an image to noise."""
        return "flow"

    def text_lengths(self) -> tuple[Callable[[str], int], int]:
        """The template counts."""
        tokenizer = self.tokenizer()

        def count(text: str) -> int:
            message = [{"role": "user", "content": text}]
            whole = tokenizer.apply_chat_template(
                message, tokenize=False, add_generation_prompt=True, enable_thinking=self.thinking
            )
            return len(tokenizer(whole, truncation=False, verbose=False)["input_ids"])

        return count, self.tokens

    def _random_states(self, width: int, random: torch.Generator) -> torch.Tensor:
        return torch.randn((2, self.probe_tokens, width), generator=random)
