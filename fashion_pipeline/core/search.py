"""The search for the best prompt within a budget of images: successive halving with common random numbers."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Trial = tuple[str, str]
"""A candidate's id and a reference photo's id: one image."""

MIN_RUNG_PRODUCTS = 4
"""Fewest photos on which candidates are compared before half of them leave."""


class BudgetError(ValueError):
    """A budget too small to compare the candidates; the message gives the smallest that works."""


@dataclass
class Standing:
    """What the search knows of one candidate."""

    candidate: str
    scores: dict[str, float] = field(default_factory=dict)
    """Cosine by reference photo."""
    rung: int = 0
    """Rounds of halving survived."""

    @property
    def mean(self) -> float:
        """Mean cosine over the photos it was drawn for."""
        return float(np.mean(list(self.scores.values()))) if self.scores else float("-inf")


def seed_for(product_group: str, repeat: int) -> int:
    """The seed of a product's k-th image: the same for every prompt and model that is compared on that product."""
    digest = hashlib.sha256(f"seed:{product_group}:{repeat}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def sample_order(ids: Sequence[str], purpose: str) -> list[str]:
    """The ids in a fixed pseudo-random order: the first n are a sample of n, and more of them keep the first."""
    return sorted(ids, key=lambda item: hashlib.sha256(f"{purpose}:{item}".encode()).hexdigest())


def successive_halving(
    candidates: Sequence[str],
    references: Sequence[str],
    budget: int,
    draw: Callable[[Sequence[Trial]], Mapping[Trial, float]],
) -> list[Standing]:
    """Spend at most `budget` images on finding the candidate with the highest mean score; best first.

    Every round draws the remaining candidates for the same photos, each photo with the same seed (common random
    numbers), then the better half goes on with new photos, until one is left or the photos are used up. The last two
    are compared on all the photos that remain within budget. Jamieson & Talwalkar 2016 (successive halving).
    `draw` returns a score for every trial it is given. Raises BudgetError if the budget cannot compare all candidates.
    """
    least = len(candidates) * min(MIN_RUNG_PRODUCTS, len(references))
    if budget < least:
        raise BudgetError(
            f"a budget of {budget} images cannot compare {len(candidates)} prompts: allow {least} or more"
        )
    standings = {candidate: Standing(candidate) for candidate in candidates}
    alive, left, used = list(candidates), budget, 0
    rounds = max(1, int(np.ceil(np.log2(max(len(candidates), 2)))))
    for rung in range(rounds):
        share = left // (rounds - rung) // len(alive)
        batch = references[used : used + max(share, MIN_RUNG_PRODUCTS if rung == 0 else 0)]
        if not batch:
            break
        scores = draw([(candidate, reference) for reference in batch for candidate in alive])
        for (candidate, reference), score in scores.items():
            standings[candidate].scores[reference] = score
        used, left = used + len(batch), left - len(batch) * len(alive)
        alive = sorted(alive, key=lambda candidate: -standings[candidate].mean)
        if rung < rounds - 1:
            alive = alive[: max(1, (len(alive) + 1) // 2)]
        for candidate in alive:
            standings[candidate].rung = rung + 1
    return sorted(standings.values(), key=lambda standing: (-standing.rung, -standing.mean))
