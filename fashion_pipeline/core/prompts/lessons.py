"""What a search teaches beside its winner: which phrase helped, and what further images were worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fashion_pipeline.core.evaluation.statistics import Interval, bootstrap

Scores = Mapping[str, Mapping[str, float]]
"""Candidate → search photo → mean cosine of what was drawn for it."""


@dataclass(frozen=True)
class Effect:
    """What a phrase is worth in a prompt."""

    phrase: str
    gain: Interval
    """Mean over photos: candidates with the phrase minus candidates without it, on the same photo and seeds."""
    candidates: int
    """Candidates with the phrase."""


@dataclass(frozen=True)
class Progress:
    """Where the search stood after so many images."""

    images: int
    gain: float
    """The leader's mean over that of the plain prompt, on photos that both were drawn for."""
    candidate: str


def phrase_effects(scores: Scores, phrases: Mapping[str, Sequence[str]]) -> list[Effect]:
    """Every phrase that some candidates have and some do not, the most helpful first.

    A hint, not a proof: candidates that share a phrase differ in others as well, and those that did badly were drawn
    for fewer photos.
    """
    effects = []
    for phrase in sorted({phrase for candidate in scores for phrase in phrases.get(candidate, ())}):
        having = [candidate for candidate in scores if phrase in phrases.get(candidate, ())]
        differences = []
        for photo in {photo for candidate in having for photo in scores[candidate]}:
            there = [scores[candidate][photo] for candidate in having if photo in scores[candidate]]
            lacking = [scores[each][photo] for each in scores if each not in having and photo in scores[each]]
            if lacking:
                differences.append(float(np.mean(there) - np.mean(lacking)))
        if differences:
            effects.append(Effect(phrase, bootstrap(sorted(differences)), len(having)))
    return sorted(effects, key=lambda effect: -effect.gain.mean)


def progress(drawn: Sequence[tuple[str, str, float]], plain: str, every: int = 8) -> list[Progress]:
    """(candidate, photo, cosine) of each image in the order of drawing → the leader after every few of them.

    The leader is the candidate with the highest mean gain over the plain prompt among those that were drawn for as many
    photos as any; the plain prompt itself leads with 0 where none is above it.
    """
    seen: dict[str, dict[str, list[float]]] = {}
    steps: list[Progress] = []
    for count, (candidate, photo, cosine) in enumerate(drawn, start=1):
        seen.setdefault(candidate, {}).setdefault(photo, []).append(cosine)
        if (count % every == 0 or count == len(drawn)) and plain in seen:
            steps.append(Progress(count, *_leader(seen, plain)))
    return steps


def _leader(seen: Mapping[str, Mapping[str, Sequence[float]]], plain: str) -> tuple[float, str]:
    base = {photo: float(np.mean(cosines)) for photo, cosines in seen[plain].items()}
    gains: dict[str, list[float]] = {}
    for candidate, photos in seen.items():
        common = photos.keys() & base.keys()
        gains[candidate] = [float(np.mean(photos[photo])) - base[photo] for photo in sorted(common)]
    most = max(map(len, gains.values()))
    ahead = {candidate: float(np.mean(each)) for candidate, each in gains.items() if len(each) == most}
    best = max(sorted(ahead), key=lambda candidate: (ahead[candidate], candidate == plain))
    return ahead[best], best
