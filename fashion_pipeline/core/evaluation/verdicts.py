"""The publishing rule: what counts as better, and the thresholds, which were written before any result.

The verdict rests on the `dev` split and on the plain prompt, since a style that was learned comes without being asked
for. `test` is only reported. A stricter rule is one more function in `_RULES`, at the place of its precedence. The same
rules compare a challenger with the published version, which it must beat as well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from fashion_pipeline.core.evaluation import measures
from fashion_pipeline.core.evaluation.statistics import (
    Condition,
    Floats,
    Interval,
    paired,
    paired_scores,
    products_needed,
    set_score,
    share,
    standardised_gain,
)
from fashion_pipeline.core.features.shuffling import RECOGNISED, SEEN, Sight
from fashion_pipeline.core.rows import Model, Role, Split
from fashion_pipeline.core.texts import text

VerdictName = Literal["broken", "collapsed", "memorised", "hacked", "worse", "better", "no evidence", "undecided"]
"""`undecided` says that there were too few products, `no evidence` that there were enough and nothing was found."""

MIN_PRODUCTS = 40
"""Fewest products that a verdict may rest on: with 40 the interval covers 94 % of the truth, with 10 only 91 %."""

HACKED_SHARE = 0.5
"""The judge must be able to confirm this share of the encoder's gain, both in standard deviations of the original's
scores; if its interval lies below, the gain exists for the encoder alone."""

LEAST_EFFECT = 0.2
"""A gain must be at least so large, in standard deviations of the original's scores, by encoder and judge: what Cohen
(1988) calls a small effect. A smaller one may be certain and is still not worth another model."""

FLAT_SHARE = 0.1
"""Share of samples of one colour all over that a model may draw."""

REPEATED_SHARE = 0.25
"""Share of samples that may be near-duplicates of one with another seed."""

VARIETY_KEPT = 0.5
"""A model has collapsed where it keeps less than this share of the variety of the original's samples and of that of the
photos: a style is narrower than what the original draws, but not narrower than its own photos."""

MEMORISED_SHARE = 0.05
"""Share of samples that may be nearer to a training photo than 99 of 100 photos which were never trained on."""

POWER = 0.8
"""Share of evaluations that should find a gain of `LEAST_EFFECT`, for the number of products that would be needed."""

SPLIT = Split.DEV
"""The split that decides: not the one on which prompts were chosen, nor the one that is reported."""

AFTER = Condition(Model.SPECIALISED, "plain")
"""What is judged."""

BEFORE = Condition(Model.ORIGINAL, "plain")
"""What it is compared with, product by product, with the same seeds."""

BEST_PROMPT = Condition(Model.ORIGINAL, "best")
"""What is judged where only prompts were searched."""

CHAMPION = Condition(Model.CHAMPION, "plain")
"""What it must beat as well, where a version is published."""

PHOTOS = Condition(Model.PHOTOS, "photos")
"""The photos themselves, as one of the cells for measures of a set."""

_SHARES = (measures.RECOGNISED, measures.GARMENT, measures.FLAT, measures.REPEATED, measures.COPIED)


@dataclass(frozen=True)
class Verdict:
    """What the comparison says about the specialised model."""

    name: VerdictName
    reason: str
    """One sentence with the numbers."""


@dataclass(frozen=True)
class Share:
    """The share of a model's samples with a property, and its difference from the share of the model compared with."""

    share: Interval
    gain: Interval

    @property
    def before(self) -> float:
        """The share of what it is compared with."""
        return self.share.mean - self.gain.mean


@dataclass(frozen=True)
class Variety:
    """How many different images the samples amount to, and those that they are compared with."""

    after: Interval
    before: Interval
    photos: Interval


@dataclass(frozen=True)
class Evidence:
    """The paired gains of one condition over another, and what is to be said of its samples beside."""

    encoder: Interval
    judge: Interval
    encoder_standardised: Interval | None
    judge_standardised: Interval | None
    shares: Mapping[str, Share]
    """Measure → share of samples, for the measures that were taken."""
    variety: Variety | None
    unseen: str | None
    """Says so where encoder or judge does not see the garments in the photos."""
    needed: int | None
    """Products by which encoder and judge would both find a gain of `LEAST_EFFECT`, in `POWER` of all evaluations."""
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
        gains = (self.encoder_standardised, self.judge_standardised)
        return min((gain.mean for gain in gains if gain), default=float("inf"))

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
        return Verdict("undecided", text("verdict.too_few", **figures))
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
    both = f" {text('verdict.and')} "
    who = both.join(text(f"verdict.roles.{role}") for role in shares)
    return text("verdict.unseen", who=who, shares=both.join(shares.values()), needed=f"{SEEN:.0%}")


def _evidence(
    scores: pa.Table,
    pairs: Mapping[Role, tuple[Floats, Floats]],
    compared: tuple[Condition, Condition],
    sight: Mapping[str, Sight],
) -> Evidence:
    shares = {each.name: paired_scores(scores, *compared, measure=each.name, split=SPLIT) for each in _SHARES}
    needed = [products_needed(*pair, LEAST_EFFECT, power=POWER) for pair in pairs.values()]
    return Evidence(
        encoder=paired(*pairs[Role.ENCODER]),
        judge=paired(*pairs[Role.JUDGE]),
        encoder_standardised=standardised_gain(*pairs[Role.ENCODER]),
        judge_standardised=standardised_gain(*pairs[Role.JUDGE]),
        shares={name: Share(share(pair[0]), paired(*pair)) for name, pair in shares.items() if len(pair[0])},
        variety=_variety(scores, compared),
        unseen=unseen(sight),
        needed=max((each for each in needed if each is not None), default=None),
        compared=compared,
    )


def _variety(scores: pa.Table, compared: tuple[Condition, Condition]) -> Variety | None:
    scores_of_sets = [
        set_score(scores, condition, measure=measures.DIVERSITY.name, split=SPLIT) for condition in (*compared, PHOTOS)
    ]
    after, before, photos = scores_of_sets
    return Variety(after, before, photos) if after and before and photos else None


def _too_many(evidence: Evidence, measure: measures.Measure, allowed: float) -> Share | None:
    """The share of a measure, where it is certainly larger than what is allowed and than before."""
    share = evidence.shares.get(measure.name)
    return share if share and share.share.above(allowed) and share.gain.above(0) else None


def _flat(evidence: Evidence) -> str | None:
    share = _too_many(evidence, measures.FLAT, FLAT_SHARE)
    return _of_share(evidence, "flat", share) if share else None


def _unrecognisable(evidence: Evidence) -> str | None:
    share = evidence.shares.get(measures.RECOGNISED.name)
    if share is None or not share.share.below(RECOGNISED) or not share.gain.below(0):
        return None
    return _of_share(evidence, "broken", share)


def _repeated(evidence: Evidence) -> str | None:
    share = _too_many(evidence, measures.REPEATED, REPEATED_SHARE)
    return _of_share(evidence, "repeated", share) if share else None


def _narrow(evidence: Evidence) -> str | None:
    variety = evidence.variety
    if variety is None or not all(
        variety.after.below(VARIETY_KEPT * other.mean) for other in (variety.before, variety.photos)
    ):
        return None
    figures = {"variety": variety.after, "before_variety": variety.before, "photos_variety": variety.photos}
    return evidence.said("collapsed", **{name: f"{each.mean:.1f}" for name, each in figures.items()})


def _memorised(evidence: Evidence) -> str | None:
    share = _too_many(evidence, measures.COPIED, MEMORISED_SHARE)
    return _of_share(evidence, "memorised", share) if share else None


def _of_share(evidence: Evidence, key: str, found: Share) -> str:
    return evidence.said(key, share=f"{found.share.mean:.0%}", before_share=f"{found.before:.0%}", n=found.share.n)


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
    share = evidence.shares.get(measures.GARMENT.name)
    return evidence.said("other_garment", gain=_signed(share.gain, 2)) if share and share.gain.below(0) else None


def _better(evidence: Evidence) -> str | None:
    if not _closer(evidence) or not _shows_something(evidence) or evidence.smallest_effect < LEAST_EFFECT:
        return None
    return evidence.said("better")


_RULES: tuple[tuple[VerdictName, Callable[[Evidence], str | None]], ...] = (
    ("broken", _flat),
    ("broken", _unrecognisable),
    ("collapsed", _repeated),
    ("collapsed", _narrow),
    ("memorised", _memorised),
    ("no evidence", lambda evidence: evidence.unseen),
    ("hacked", _hacked),
    ("worse", _worse),
    ("worse", _other_garment),
    ("better", _better),
)


def _closer(evidence: Evidence) -> bool:
    return evidence.encoder.above(0) and evidence.judge.above(0)


def _shows_something(evidence: Evidence) -> bool:
    share = evidence.shares.get(measures.RECOGNISED.name)
    return share is None or share.share.mean >= RECOGNISED


def _why_not(evidence: Evidence) -> str:
    if _closer(evidence) and not _shows_something(evidence):
        share = evidence.shares[measures.RECOGNISED.name].share.mean
        return evidence.said("unrecognised", share=f"{share:.0%}", needed=f"{RECOGNISED:.0%}")
    if _closer(evidence):
        return evidence.said("small", effect=f"{evidence.smallest_effect:.2f}", least=f"{LEAST_EFFECT:.2f}")
    ups = [gain.above(0) for gain in (evidence.encoder, evidence.judge)]
    downs = [gain.below(0) for gain in (evidence.encoder, evidence.judge)]
    if any(ups) and any(downs):
        return evidence.said("contradiction")
    if not any(ups):
        return evidence.said("neither") + _power(evidence)
    named = [text(f"verdict.roles.{role}") for role in Role]
    sure, unsure = named if ups[0] else reversed(named)
    return text("verdict.unsure", sure=sure, unsure=unsure, evidence=evidence.in_words) + _power(evidence)


def _power(evidence: Evidence) -> str:
    """How many products it takes to find the least gain that counts; empty where scores do not vary."""
    if evidence.needed is None:
        return ""
    key = "power" if evidence.needed > evidence.n else "enough_power"
    return " " + text(f"verdict.{key}", n=evidence.needed, effect=f"{LEAST_EFFECT:.1f}", power=f"{POWER:.0%}")


def _signed(interval: Interval, digits: int = 3) -> str:
    mean, low, high = (
        "" if value is None else f"{value:+.{digits}f}".replace("-", "−")
        for value in (interval.mean, interval.low, interval.high)
    )
    return text("verdict.interval", mean=mean, low=low, high=high) if low and high else mean
