"""What is measured of a model's samples: which way is better, what a value is, and who proposed it.

The table `scores` names these measures. What each means to a reader is in docs/evaluation.md.
"""

from dataclasses import dataclass
from typing import Literal

from fashion_pipeline.core.rows import Role

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Measure:
    """One measure, by its name in the table `scores`."""

    name: str
    better: Better
    kind: Literal["cosine", "share", "number"]
    """A cosine is from -1 to 1, a share from 0 to 1, a number has a range of its own."""
    source: str
    """The paper that proposed it; empty where the rule is this project's own."""


ENCODER = Measure(Role.ENCODER.value, "higher", "cosine", "Radford et al. 2021 (ICML, arXiv:2103.00020)")
"""Cosine of a sample to its product's photo by the encoder, which chose prompts, images and weights."""

JUDGE = Measure(Role.JUDGE.value, "higher", "cosine", "Ruiz et al. 2023 (CVPR, arXiv:2208.12242), section 4.1: DINO")
"""The same by the judge, an image encoder of another family that chose nothing."""

PROMPT = Measure("prompt", "higher", "cosine", "Hessel et al. 2021 (EMNLP, arXiv:2104.08718): CLIPScore, unscaled")
"""Prompt agreement: cosine of a sample to the words that it was drawn for, by the encoder."""

CONSISTENCY = Measure("consistency", "neither", "cosine", "")
"""Style consistency: mean cosine of a sample to those of other seeds, by the judge; photos have one of their own."""

RECOGNISED = Measure(
    "recognised", "higher", "share", "Naseer et al. 2021 (NeurIPS, arXiv:2105.10497): shuffled patches"
)
"""Samples that encoder and judge find closer to whole photos than to shuffled pieces of them."""

GARMENT = Measure("garment", "higher", "share", "")
"""Samples in which the encoder sees the garment that it sees in the photo."""

COVERED = Measure("covered", "higher", "share", "Naeem et al. 2020 (ICML, arXiv:2002.09797): coverage")
"""Held-out photos that a sample comes as close to as their fifth neighbour among the photos does, by the judge."""

FLAT = Measure("flat", "lower", "share", "")
"""Samples of one colour all over, such as the black ones that come of values that are no numbers."""

REPEATED = Measure("repeated", "lower", "share", "")
"""Samples that are near-duplicates of one with another seed, by the rule that finds them among photos."""

COPIED = Measure(
    "copied", "lower", "share", "Carlini et al. 2023 (USENIX Security, arXiv:2301.13188), with own distances"
)
"""Samples nearer to a training photo than 99 of 100 held-out photos are, by judge or colours."""

DISTANCE = Measure("distance", "lower", "number", "Bińkowski et al. 2018 (ICLR, arXiv:1801.01401): KID, unbiased")
"""Squared maximum mean discrepancy of samples and held-out photos by the judge; around 0 where they are alike."""

DIVERSITY = Measure("diversity", "higher", "number", "Friedman and Dieng 2023 (TMLR, arXiv:2210.02410): Vendi score")
"""How many different images the samples amount to, by the judge: from 1 to their number."""

MEASURES: dict[str, Measure] = {
    each.name: each
    for each in (
        ENCODER,
        JUDGE,
        PROMPT,
        RECOGNISED,
        GARMENT,
        FLAT,
        REPEATED,
        COPIED,
        COVERED,
        CONSISTENCY,
        DISTANCE,
        DIVERSITY,
    )
}
"""All measures, in the order in which they are shown. `core.evaluation.best_of` has judge similarity once more."""
