"""What a language model is asked for prompts, and which of its answer is taken.

It sees what was drawn so far as prompts with scores, and proposes the next ones; images decide. As in PRISM (He et al.
2024, arXiv 2403.19103), whose model sees the images of a set too.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.prompts.growing import Seen

PROPOSED = "proposed"
"""Strategy: written by a language model."""

SHOWN = 12
"""Prompts with their scores that the model sees, half of them the closest."""

PROPOSALS = 8
"""Prompts that it is asked for at a time."""

LONGEST = 400
"""Characters of a prompt; longer ones are no prompts."""

_TASK = """\
You write prompts for a text-to-image model whose weights cannot be changed. The aim is one prompt that makes it draw
pictures like the photos of a fashion style. You are shown prompts that were tried, each with the mean similarity of its
pictures to the photos (-1 to 1). What describes the photos is not always what draws them: words that the model never
learnt draw something else. Learn from the scores, and propose {count} new prompts that may score higher. Answer with a
JSON array of strings and nothing else, such as ["a photo of a red gown", "a photo of a long linen tunic"]."""


def messages_for(subject: str, seen: Sequence[Seen], count: int = PROPOSALS) -> list[dict[str, str]]:
    """The messages of a chat: the task, then what was tried. `seen` is best first."""
    half = SHOWN // 2
    shown = list(seen) if len(seen) <= SHOWN else [*seen[:half], *seen[half :: -(-(len(seen) - half) // half)]]
    tried = "\n".join(f"{each.score:.3f}  {each.candidate.prompt}" for each in shown)
    content = f"The style is called: {subject}\n\nTried so far, best first:\n{tried}"
    return [{"role": "system", "content": _TASK.format(count=count)}, {"role": "user", "content": content}]


def proposals_in(
    answer: str, fits: Callable[[str], bool], is_kept_out: Callable[[str], bool], count: int = PROPOSALS
) -> list[Candidate]:
    """The prompts of an answer that can be drawn, each once, `count` at most; none of an answer without a JSON array.

    Left out are texts that the generator does not read whole, those with words that are kept out, and what is no text.
    """
    prompts = [" ".join(each.split()) for each in _array_in(answer) if isinstance(each, str)]
    drawable = [each for each in prompts if each and each.isprintable() and len(each) <= LONGEST]
    usable = [each for each in drawable if fits(each) and not is_kept_out(each)]
    return [Candidate(PROPOSED, prompt) for prompt in dict.fromkeys(usable)][:count]


def kept_out(never: Sequence[str]) -> Callable[[str], bool]:
    """A function that tells whether a text has one of these words or phrases, in letters of any size."""
    if not never:
        return lambda text: False
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, never))})(?!\w)", re.IGNORECASE)
    return lambda text: pattern.search(text) is not None


def _array_in(answer: str) -> list[Any]:
    """The first JSON array in a text, whatever stands around it."""
    decoder = json.JSONDecoder()
    for start in (match.start() for match in re.finditer(r"\[", answer)):
        try:
            found, _ = decoder.raw_decode(answer, start)
        except (ValueError, RecursionError):
            continue
        return list(found)
    return []
