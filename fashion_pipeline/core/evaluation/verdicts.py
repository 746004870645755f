"""The publishing rule: what counts as better, and the thresholds, which were written before any result.

The verdict rests on the `dev` split and on the plain prompt, since a style that was learned comes without being asked
for. `test` is only reported. A stricter rule is one more function in `_RULES`, at the place of its precedence. The same
rules compare a challenger with the published version, which it must beat as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from fashion_pipeline.core.evaluation.statistics import (
    Condition,
    Interval,
    paired,
    paired_scores,
    standardised_gain,
)
from fashion_pipeline.core.rows import Model, Role, Split
from fashion_pipeline.core.texts import text

VerdictName = Literal["hacked", "worse", "better", "no evidence"]

MIN_PRODUCTS = 40
"""Fewest products that a verdict may rest on: with 40 the interval covers 94 % of the truth, with 10 only 91 %."""

HACKED_SHARE = 0.5
"""The judge must be able to confirm this share of the encoder's gain, both in standard deviations of the original's
scores; if its interval lies below, the gain exists for the encoder alone."""

SPLIT = Split.DEV
"""The split that decides: not the one on which prompts were chosen, nor the one that is reported."""

AFTER = Condition(Model.SPECIALISED, "plain")
"""What is judged."""

BEFORE = Condition(Model.ORIGINAL, "plain")
"""What it is compared with, product by product, with the same seeds."""

CHAMPION = Condition(Model.CHAMPION, "plain")
"""What it must beat as well, where a version is published."""


@dataclass(frozen=True)
class Verdict:
    """What the comparison says about the specialised model."""

    name: VerdictName
    reason: str
    """One sentence with the numbers."""


@dataclass(frozen=True)
class Evidence:
    """The paired gains of the specialised over the original model, in cosine and in standard deviations."""

    encoder: Interval
    judge: Interval
    encoder_standardised: Interval | None
    judge_standardised: Interval | None
    before: Condition = BEFORE

    @property
    def n(self) -> int:
        """Products compared by both."""
        return min(self.encoder.n, self.judge.n)

    @property
    def in_words(self) -> str:
        """Both gains and the number of products."""
        gains = {"encoder": _signed(self.encoder), "judge": _signed(self.judge)}
        return text("verdict.evidence", **gains, n=self.n)

    def said(self, key: str) -> str:
        """A sentence with both models' names and the gains."""
        names = {
            name: text(f"models.{model}") for name, model in (("after", AFTER.model), ("before", self.before.model))
        }
        return text(f"verdict.{key}", **names, evidence=self.in_words)


def decide(scores: pa.Table, before: Condition = BEFORE) -> Verdict:
    """The verdict on a table `scores`: the first rule that applies, in the order of `_RULES`."""
    pairs = {role: paired_scores(scores, AFTER, before, measure=role, split=SPLIT) for role in Role}
    n = min(len(after) for after, _ in pairs.values())
    if n < MIN_PRODUCTS:
        figures = {"n": n, "split": SPLIT.value, "needed": MIN_PRODUCTS, "missing": MIN_PRODUCTS - n}
        return Verdict("no evidence", text("verdict.too_few", **figures))
    gains = {role: paired(*pairs[role]) for role in Role}
    standardised = {role: standardised_gain(*pairs[role]) for role in Role}
    encoder, judge = Role.ENCODER, Role.JUDGE
    evidence = Evidence(gains[encoder], gains[judge], standardised[encoder], standardised[judge], before)
    for name, rule in _RULES:
        if reason := rule(evidence):
            return Verdict(name, reason)
    return Verdict("no evidence", _why_not(evidence))


def _hacked(evidence: Evidence) -> str | None:
    encoder, judge = evidence.encoder_standardised, evidence.judge_standardised
    if encoder is None or judge is None or not encoder.above(0) or not judge.below(HACKED_SHARE * encoder.mean):
        return None
    figures = {"gain": f"{encoder.mean:+.2f}", "seen": _signed(judge, digits=2), "share": f"{HACKED_SHARE:.0%}"}
    return text("verdict.hacked", **figures)


def _worse(evidence: Evidence) -> str | None:
    gains = (evidence.encoder, evidence.judge)
    if any(gain.above(0) for gain in gains) or not any(gain.below(0) for gain in gains):
        return None
    return evidence.said("worse")


def _better(evidence: Evidence) -> str | None:
    if not (evidence.encoder.above(0) and evidence.judge.above(0)):
        return None
    return evidence.said("better")


_RULES: tuple[tuple[VerdictName, Callable[[Evidence], str | None]], ...] = (
    ("hacked", _hacked),
    ("worse", _worse),
    ("better", _better),
)


def _why_not(evidence: Evidence) -> str:
    ups = [gain.above(0) for gain in (evidence.encoder, evidence.judge)]
    downs = [gain.below(0) for gain in (evidence.encoder, evidence.judge)]
    if any(ups) and any(downs):
        return evidence.said("contradiction")
    if not any(ups):
        return evidence.said("neither")
    sure, unsure = ("encoder", "judge") if ups[0] else ("judge", "encoder")
    return text("verdict.unsure", sure=sure, unsure=unsure, evidence=evidence.in_words)


def _signed(interval: Interval, digits: int = 3) -> str:
    mean = f"{interval.mean:+.{digits}f}"
    if interval.low is None or interval.high is None:
        return mean
    return text("verdict.interval", mean=mean, low=f"{interval.low:+.{digits}f}", high=f"{interval.high:+.{digits}f}")
