"""The publishing rule: what counts as better, and the thresholds, which were written before any result.

The verdict rests on the `dev` split and on the plain prompt, since a style that was learned comes without being asked
for. `test` is only reported. A stricter rule is one more function in `_RULES`, at the place of its precedence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from fashion_pipeline.core.statistics import Condition, Interval, paired, paired_scores, standardised_gain

VerdictName = Literal["hacked", "worse", "better", "no evidence"]

MIN_PRODUCTS = 40
"""Fewest products that a verdict may rest on: with 40 the interval covers 94 % of the truth, with 10 only 91 %."""

HACKED_SHARE = 0.5
"""The judge must be able to confirm this share of the encoder's gain, both in standard deviations of the original's
scores; if its interval lies below, the gain exists for the encoder alone."""

SPLIT = "dev"
"""The split that decides: not the one on which prompts were chosen, nor the one that is reported."""

AFTER = Condition("specialised", "plain")
"""What is judged."""

BEFORE = Condition("original", "plain")
"""What it is compared with, product by product, with the same seeds."""


@dataclass(frozen=True)
class Verdict:
    """What the comparison says about the specialised model."""

    name: VerdictName
    reason: str
    """One sentence in plain English, with the numbers."""


@dataclass(frozen=True)
class Evidence:
    """The paired gains of the specialised over the original model, in cosine and in standard deviations."""

    encoder: Interval
    judge: Interval
    encoder_standardised: Interval | None
    judge_standardised: Interval | None

    @property
    def n(self) -> int:
        """Products compared by both."""
        return min(self.encoder.n, self.judge.n)

    @property
    def in_words(self) -> str:
        """Both gains and the number of products."""
        return f"by encoder {_signed(self.encoder)}, by judge {_signed(self.judge)}, on {self.n} products"


def decide(scores: pa.Table) -> Verdict:
    """The verdict on a table `scores`: the first rule that applies, in the order of `_RULES`."""
    pairs = {role: paired_scores(scores, AFTER, BEFORE, encoder=role, split=SPLIT) for role in ("encoder", "judge")}
    n = min(len(after) for after, _ in pairs.values())
    if n < MIN_PRODUCTS:
        return Verdict(
            "no evidence",
            f"Only {n} {SPLIT} products have scores of both models by encoder and judge; a verdict needs "
            f"{MIN_PRODUCTS}, so {MIN_PRODUCTS - n} are missing.",
        )
    evidence = Evidence(
        *(paired(*pairs[role]) for role in ("encoder", "judge")),
        *(standardised_gain(*pairs[role]) for role in ("encoder", "judge")),
    )
    for name, rule in _RULES:
        if reason := rule(evidence):
            return Verdict(name, reason)
    return Verdict("no evidence", _why_not(evidence))


def _hacked(evidence: Evidence) -> str | None:
    encoder, judge = evidence.encoder_standardised, evidence.judge_standardised
    if encoder is None or judge is None or not encoder.above(0) or not judge.below(HACKED_SHARE * encoder.mean):
        return None
    return (
        f"The encoder's gain of {encoder.mean:+.2f} standard deviations is not confirmed by the judge, which sees "
        f"{_signed(judge, digits=2)} and rules out {HACKED_SHARE:.0%} of it: the model learned to please the encoder."
    )


def _worse(evidence: Evidence) -> str | None:
    gains = (evidence.encoder, evidence.judge)
    if any(gain.above(0) for gain in gains) or not any(gain.below(0) for gain in gains):
        return None
    return f"The specialised model is further from the photos than the original: {evidence.in_words}."


def _better(evidence: Evidence) -> str | None:
    if not (evidence.encoder.above(0) and evidence.judge.above(0)):
        return None
    return f"The specialised model comes closer to photos it never saw: {evidence.in_words}."


_RULES: tuple[tuple[VerdictName, Callable[[Evidence], str | None]], ...] = (
    ("hacked", _hacked),
    ("worse", _worse),
    ("better", _better),
)


def _why_not(evidence: Evidence) -> str:
    ups = [gain.above(0) for gain in (evidence.encoder, evidence.judge)]
    downs = [gain.below(0) for gain in (evidence.encoder, evidence.judge)]
    if any(ups) and any(downs):
        return f"Encoder and judge contradict each other: {evidence.in_words}."
    if not any(ups):
        return f"Neither encoder nor judge can tell the models apart: {evidence.in_words}."
    sure, unsure = ("encoder", "judge") if ups[0] else ("judge", "encoder")
    return f"The {sure} sees a gain, but the {unsure}'s interval includes zero: {evidence.in_words}."


def _signed(interval: Interval, digits: int = 3) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.mean:+.{digits}f}"
    return f"{interval.mean:+.{digits}f} (95 % interval {interval.low:+.{digits}f} to {interval.high:+.{digits}f})"
