"""The publishing rule: what counts as better, and the thresholds, which were written before any result.

The verdict rests on the `dev` split and on the plain prompt, since a style that was learned comes without being asked
for. `test` is only reported. A stricter rule is one more function in `_RULES`, at the place of its precedence. The same
rules compare a challenger with the published version, which it must beat as well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from fashion_pipeline.core.evaluation.statistics import (
    Condition,
    Floats,
    Interval,
    bootstrap,
    paired,
    paired_scores,
    standardised_gain,
)
from fashion_pipeline.core.features.shuffling import RECOGNISED, SEEN, Sight
from fashion_pipeline.core.rows import Model, Role, Split
from fashion_pipeline.core.texts import text

VerdictName = Literal["broken", "hacked", "worse", "better", "no evidence"]

MIN_PRODUCTS = 40
"""Fewest products that a verdict may rest on: with 40 the interval covers 94 % of the truth, with 10 only 91 %."""

HACKED_SHARE = 0.5
"""The judge must be able to confirm this share of the encoder's gain, both in standard deviations of the original's
scores; if its interval lies below, the gain exists for the encoder alone."""

LEAST_EFFECT = 0.2
"""A gain must be at least so large, in standard deviations of the original's scores, by encoder and judge: what Cohen
(1988) calls a small effect. A smaller one may be certain and is still not worth another model."""

SPLIT = Split.DEV
"""The split that decides: not the one on which prompts were chosen, nor the one that is reported."""

RECOGNISED_MEASURE = "recognised"
"""Share of a product's samples that encoder and judge find closer to whole photos than to shuffled pieces of them."""

GARMENT_MEASURE = "garment"
"""Share of a product's samples in which the encoder sees the garment that it sees in the photo."""

AFTER = Condition(Model.SPECIALISED, "plain")
"""What is judged."""

BEFORE = Condition(Model.ORIGINAL, "plain")
"""What it is compared with, product by product, with the same seeds."""

BEST_PROMPT = Condition(Model.ORIGINAL, "best")
"""What is judged where only prompts were searched."""

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
    """The paired gains of one condition over another, and whether its samples show what they should."""

    encoder: Interval
    judge: Interval
    encoder_standardised: Interval | None
    judge_standardised: Interval | None
    recognised: Interval | None
    """Share of the samples of what is judged that look more like the photos than like shuffled pieces of them."""
    recognised_gain: Interval | None
    garment_gain: Interval | None
    """In the share of samples that show the garment of their photo."""
    unseen: str | None
    """Says so where encoder or judge does not see the garments in the photos."""
    compared: tuple[Condition, Condition] = (AFTER, BEFORE)

    @property
    def n(self) -> int:
        """Products compared by both."""
        return min(self.encoder.n, self.judge.n)

    @property
    def in_words(self) -> str:
        """Both gains and the number of products."""
        gains = {"encoder": _signed(self.encoder), "judge": _signed(self.judge)}
        return text("verdict.evidence", **gains, n=self.n)

    @property
    def smallest_effect(self) -> float:
        """The smaller of both gains in standard deviations; infinite where the original's scores do not vary."""
        found = (self.encoder_standardised, self.judge_standardised)
        return min((gain.mean for gain in found if gain), default=float("inf"))

    def said(self, key: str, **figures: object) -> str:
        """A sentence with the names of both models, or of both prompts of one model, and the gains."""
        after, before = self.compared
        by = "models" if after.model != before.model else "prompts"
        names = {"after": text(f"{by}.{after[by == 'prompts']}"), "before": text(f"{by}.{before[by == 'prompts']}")}
        return text(f"verdict.{key}", **names, evidence=self.in_words, **figures)


def decide(
    scores: pa.Table, before: Condition = BEFORE, sight: Mapping[str, Sight] | None = None, after: Condition = AFTER
) -> Verdict:
    """The verdict on a table `scores`: the first rule that applies, in the order of `_RULES`.

    It is on `after`, compared with `before`: on a model, or on a prompt. `sight` has what the shuffle control says of
    encoder and judge. The measures `recognised` and `garment` count where the table has them.
    """
    pairs = {role: paired_scores(scores, after, before, measure=role, split=SPLIT) for role in Role}
    n = min(len(after) for after, _ in pairs.values())
    if n < MIN_PRODUCTS:
        figures = {"n": n, "split": SPLIT.value, "needed": MIN_PRODUCTS, "missing": MIN_PRODUCTS - n}
        return Verdict("no evidence", text("verdict.too_few", **figures))
    evidence = _evidence(scores, pairs, (after, before), sight or {})
    for name, rule in _RULES:
        if reason := rule(evidence):
            return Verdict(name, reason)
    return Verdict("no evidence", _why_not(evidence))


def unseen(sight: Mapping[str, Sight]) -> str | None:
    """The sentence for photos in which encoder or judge does not see the garments; None where both do."""
    shares = {str(role): f"{each.share:.0%}" for role, each in sight.items() if not each.believed}
    if not shares:
        return None
    return text("verdict.unseen", who=" and ".join(shares), shares=" and ".join(shares.values()), needed=f"{SEEN:.0%}")


def _evidence(
    scores: pa.Table,
    pairs: Mapping[Role, tuple[Floats, Floats]],
    compared: tuple[Condition, Condition],
    sight: Mapping[str, Sight],
) -> Evidence:
    shares = {
        measure: paired_scores(scores, *compared, measure=measure, split=SPLIT)
        for measure in (RECOGNISED_MEASURE, GARMENT_MEASURE)
    }
    gains = {measure: paired(*pair) for measure, pair in shares.items() if len(pair[0])}
    shown = shares[RECOGNISED_MEASURE][0]
    return Evidence(
        encoder=paired(*pairs[Role.ENCODER]),
        judge=paired(*pairs[Role.JUDGE]),
        encoder_standardised=standardised_gain(*pairs[Role.ENCODER]),
        judge_standardised=standardised_gain(*pairs[Role.JUDGE]),
        recognised=bootstrap(shown) if len(shown) else None,
        recognised_gain=gains.get(RECOGNISED_MEASURE),
        garment_gain=gains.get(GARMENT_MEASURE),
        unseen=unseen(sight),
        compared=compared,
    )


def _broken(evidence: Evidence) -> str | None:
    share, gain = evidence.recognised, evidence.recognised_gain
    if share is None or gain is None or not share.below(RECOGNISED) or not gain.below(0):
        return None
    return evidence.said("broken", share=f"{share.mean:.0%}", before_share=f"{share.mean - gain.mean:.0%}", n=share.n)


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


def _other_garment(evidence: Evidence) -> str | None:
    gain = evidence.garment_gain
    return evidence.said("other_garment", gain=_signed(gain, digits=2)) if gain and gain.below(0) else None


def _better(evidence: Evidence) -> str | None:
    if not _closer(evidence) or not _shows_something(evidence) or evidence.smallest_effect < LEAST_EFFECT:
        return None
    return evidence.said("better")


_RULES: tuple[tuple[VerdictName, Callable[[Evidence], str | None]], ...] = (
    ("broken", _broken),
    ("no evidence", lambda evidence: evidence.unseen),
    ("hacked", _hacked),
    ("worse", _worse),
    ("worse", _other_garment),
    ("better", _better),
)


def _closer(evidence: Evidence) -> bool:
    return evidence.encoder.above(0) and evidence.judge.above(0)


def _shows_something(evidence: Evidence) -> bool:
    return evidence.recognised is None or evidence.recognised.mean >= RECOGNISED


def _why_not(evidence: Evidence) -> str:
    if _closer(evidence) and evidence.recognised and not _shows_something(evidence):
        return evidence.said("unrecognised", share=f"{evidence.recognised.mean:.0%}", needed=f"{RECOGNISED:.0%}")
    if _closer(evidence):
        return evidence.said("small", effect=f"{evidence.smallest_effect:.2f}", least=f"{LEAST_EFFECT:.2f}")
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
