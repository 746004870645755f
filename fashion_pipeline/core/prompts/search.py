"""The search for the best prompt within a budget of images: successive halving with common random numbers."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Trial(NamedTuple):
    """One image: a candidate, drawn for a reference photo with that photo's k-th seed."""

    candidate: str
    reference: str
    repeat: int = 0


MIN_RUNG_PRODUCTS = 4
"""Fewest photos on which candidates are compared before half of them leave."""


class BudgetError(ValueError):
    """A budget too small to compare the candidates; the message gives the smallest that works."""


@dataclass
class Standing:
    """What the search knows of one candidate."""

    candidate: str
    scores: dict[str, list[float]] = field(default_factory=dict)
    """Reference photo → the cosines of the images drawn for it, one a repeat."""
    rung: int = 0
    """Rounds of halving survived."""

    @property
    def mean(self) -> float:
        """Mean over the photos it was drawn for of each photo's mean cosine."""
        return float(np.mean(self.by_reference)) if self.scores else float("-inf")

    @property
    def by_reference(self) -> list[float]:
        """Each photo's mean cosine."""
        return [float(np.mean(cosines)) for cosines in self.scores.values()]

    @property
    def images(self) -> int:
        """Images that the score rests on."""
        return sum(map(len, self.scores.values()))


def seed_for(product_group: str, repeat: int) -> int:
    """The seed of a product's k-th image: the same for every prompt and model that is compared on that product."""
    digest = hashlib.sha256(f"seed:{product_group}:{repeat}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def sample_order(ids: Sequence[str], purpose: str) -> list[str]:
    """The ids in a fixed pseudo-random order: the first n are a sample of n, and more of them keep the first."""
    return sorted(ids, key=lambda item: hashlib.sha256(f"{purpose}:{item}".encode()).hexdigest())


def require_budget(budget: int, candidates: int, references: int) -> None:
    """Raise BudgetError if the budget cannot draw every candidate for a few photos."""
    least = candidates * min(MIN_RUNG_PRODUCTS, references)
    if budget < least:
        raise BudgetError(f"a budget of {budget} images cannot compare {candidates} prompts: allow {least} or more")


def successive_halving(
    candidates: Sequence[str],
    references: Sequence[str],
    budget: int,
    draw: Callable[[Sequence[Trial]], Mapping[Trial, float]],
) -> list[Standing]:
    """Spend at most `budget` images on finding the candidate with the highest mean score; best first.

    Every round draws the remaining candidates for the same photos, each photo with the same seed (common random
    numbers), then the better half goes on with new photos, and with further seeds of the same ones once all were used.
    The last two are compared on what remains within budget. Jamieson & Talwalkar 2016 (successive halving).
    `draw` returns a score for every trial it is given. Raises BudgetError if the budget cannot compare all candidates.
    """
    require_budget(budget, len(candidates), len(references))
    standings = {candidate: Standing(candidate) for candidate in candidates}
    alive, left, used = list(candidates), budget, 0
    rounds = max(1, int(np.ceil(np.log2(max(len(candidates), 2)))))
    for rung in range(rounds):
        share = left // (rounds - rung) // len(alive)
        places = range(used, used + max(share, min(MIN_RUNG_PRODUCTS, len(references)) if rung == 0 else 0))
        batch = [(references[place % len(references)], place // len(references)) for place in places]
        if not batch:
            break
        scores = draw([Trial(candidate, *shown) for shown in batch for candidate in alive])
        for trial, score in scores.items():
            standings[trial.candidate].scores.setdefault(trial.reference, []).append(score)
        used, left = used + len(batch), left - len(batch) * len(alive)
        alive = sorted(alive, key=lambda candidate: -standings[candidate].mean)
        if rung < rounds - 1:
            alive = alive[: max(1, (len(alive) + 1) // 2)]
        for candidate in alive:
            standings[candidate].rung = rung + 1
    return sorted(standings.values(), key=lambda standing: (-standing.rung, -standing.mean))
