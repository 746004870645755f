"""What an evaluation decides: made once, stored with it, and told in the same words everywhere.

It answers the question of the whole program: what words reach, what training adds to the best words, and whether the
model is to be published.
"""

from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from fashion_pipeline.core.evaluation.statistics import Condition, Interval, paired, paired_scores
from fashion_pipeline.core.evaluation.verdicts import (
    AFTER,
    BEFORE,
    BEST_PROMPT,
    CHAMPION,
    MIN_PRODUCTS,
    SPLIT,
    Verdict,
    decide,
)
from fashion_pipeline.core.features.shuffling import Sight
from fashion_pipeline.core.rows import Model, Role
from fashion_pipeline.core.texts import text

PublishWhen = Literal["better than the best words", "better than the original"]
"""What a model must be to be published; in both cases it must also be better than the version in use."""

WORDS: PublishWhen = "better than the best words"
ORIGINAL: PublishWhen = "better than the original"

ON_TOP = Condition(Model.SPECIALISED, "best")
"""What is compared with the best prompt of the original: what training adds to words."""

NOT_ABOVE_WORDS, NOT_ABOVE_CHAMPION = "words suffice", "version in use"


class Gains(BaseModel):
    """A paired gain by encoder and judge, in cosine, on the split that decides."""

    model_config = ConfigDict(frozen=True)

    encoder: Interval
    judge: Interval


class Decision(BaseModel):
    """What was decided about a model, and why."""

    model_config = ConfigDict(frozen=True)

    name: str
    """A verdict's name, or `words suffice` or `version in use`: what keeps a better model from being published."""
    publish: bool
    headline: str
    """One sentence, the same on every page."""
    reason: str
    """A sentence with the figures that decided."""
    publish_when: PublishWhen = ORIGINAL
    words: Gains | None = None
    """The best prompt over the plain one, both with the original."""
    training: Gains | None = None
    """The specialised model over the original, both with the plain prompt."""
    beyond_words: Gains | None = None
    """The specialised model over the original, both with the best prompt."""
    against_champion: Gains | None = None
    """The specialised model over the version in use, both with the plain prompt."""


def decide_publishing(
    scores: pa.Table, sight: Mapping[str, Sight], publish_when: PublishWhen, verdict: Verdict, champion: bool
) -> Decision:
    """The decision on a table `scores`; `verdict` is the one over the original, `champion` whether a version is in use.

    The rules of `verdicts.decide` are applied to each comparison that must be won, and the first one lost decides.
    """
    gains = {
        "words": _gains(scores, BEST_PROMPT, BEFORE),
        "training": _gains(scores, AFTER, BEFORE),
        "beyond_words": _gains(scores, ON_TOP, BEST_PROMPT),
        "against_champion": _gains(scores, AFTER, CHAMPION) if champion else None,
    }
    name, reason = _deciding(scores, sight, publish_when, verdict, champion)
    return Decision(
        name=name,
        publish=name == "better",
        headline=_headline(name, gains, publish_when),
        reason=reason,
        publish_when=publish_when,
        **gains,
    )


def decision_of_before(verdict: str, reason: str, against: tuple[str, str] | None) -> Decision:
    """The decision of a report that an earlier version wrote; `against` is its verdict on the version then in use."""
    if verdict == "better" and against and against[0] != "better":
        headline = text("decision.version in use unmeasured")
        return Decision(name=NOT_ABOVE_CHAMPION, publish=False, headline=headline, reason=against[1])
    key = "decision.better unmeasured" if verdict == "better" else f"decision.{verdict}"
    headline = text(key, n="", needed=MIN_PRODUCTS)
    return Decision(name=verdict, publish=verdict == "better", headline=headline, reason=reason)


def _deciding(
    scores: pa.Table, sight: Mapping[str, Sight], publish_when: PublishWhen, verdict: Verdict, champion: bool
) -> tuple[str, str]:
    """The name of the decision and the sentence of the comparison that decided."""
    if verdict.name != "better":
        return verdict.name, verdict.reason
    if publish_when == WORDS:
        beyond = decide(scores, BEST_PROMPT, sight, after=ON_TOP)
        if beyond.name != "better":
            return NOT_ABOVE_WORDS, beyond.reason
    if champion:
        against = decide(scores, CHAMPION, sight)
        if against.name != "better":
            return NOT_ABOVE_CHAMPION, against.reason
    return verdict.name, verdict.reason


def _gains(scores: pa.Table, after: Condition, before: Condition) -> Gains | None:
    pairs = {role: paired_scores(scores, after, before, measure=role, split=SPLIT) for role in Role}
    if not all(len(pair[0]) for pair in pairs.values()):
        return None
    return Gains(encoder=paired(*pairs[Role.ENCODER]), judge=paired(*pairs[Role.JUDGE]))


def _headline(name: str, gains: Mapping[str, Gains | None], publish_when: PublishWhen) -> str:
    figures = {each: _signed(gain.judge, each != "against_champion") for each, gain in gains.items() if gain}
    if name == "better":
        key = name if publish_when == WORDS and "beyond_words" in figures else "better than the original"
    elif name == NOT_ABOVE_CHAMPION:
        against = gains["against_champion"]
        key = "version in use closer" if against and against.judge.mean < 0 else name
    else:
        key = name
    training = gains["training"]
    counts = {"n": training.judge.n if training else 0, "needed": MIN_PRODUCTS}
    return text(f"decision.{key}", **{"words": text("decision.unknown"), **figures, **counts})


def _signed(gain: Interval, interval: bool) -> str:
    """A gain for a headline, with its interval if that is wanted."""
    mean = f"{gain.mean:+.3f}"
    if not interval or gain.low is None or gain.high is None:
        return mean.replace("-", "−")
    return text("decision.interval", mean=mean, low=f"{gain.low:+.3f}", high=f"{gain.high:+.3f}").replace("-", "−")
