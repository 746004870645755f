"""The search for the best prompt within a budget of images: successive halving with common random numbers."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def by_candidate(drawn: Iterable[tuple[str, str, float]]) -> dict[str, dict[str, list[float]]]:
    """(candidate, photo, cosine) of each image → candidate → photo → the cosines of its images."""
    cosines: dict[str, dict[str, list[float]]] = {}
    for candidate, photo, cosine in drawn:
        cosines.setdefault(candidate, {}).setdefault(photo, []).append(cosine)
    return cosines


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


def affordable(budget: int, candidates: int, references: int) -> int:
    """How many of so many candidates a budget can compare with a round for each halving; two at least, if there are.

    The first round draws each for a few photos and may take no more than its share of the budget.
    """
    least = min(MIN_RUNG_PRODUCTS, references)
    fitting = [n for n in range(1, candidates + 1) if n * least <= budget // _rounds(n)]
    return max(fitting, default=1) if candidates < 2 else max(2, *fitting, 2)


def shortlist(ranked: Sequence[str], first: Sequence[str], most: int) -> list[str]:
    """The candidates that images are spent on: `first` in any case, then the best by text, `most` in all."""
    chosen = list(dict.fromkeys(first))
    return chosen + [candidate for candidate in ranked if candidate not in chosen][: max(0, most - len(chosen))]


def _rounds(candidates: int) -> int:
    return max(1, int(np.ceil(np.log2(max(candidates, 2)))))


def successive_halving(
    candidates: Sequence[str],
    references: Sequence[str],
    budget: int,
    draw: Callable[[Sequence[Trial]], Mapping[Trial, float]],
    known: Callable[[Trial], bool] = lambda trial: False,
) -> list[Standing]:
    """Spend at most `budget` images on finding the candidate with the highest mean score; best first.

    Every round draws the remaining candidates for the same photos, each photo with the same seed (common random
    numbers), then the better half goes on with new photos, and with further seeds of the same ones once all were used.
    The last two are compared on what remains within budget. Jamieson & Talwalkar 2016 (successive halving).
    `draw` returns a score for every trial it is given; those that are `known` from earlier rounds cost nothing. Raises
    BudgetError if the budget cannot compare all candidates.
    """
    require_budget(budget, len(candidates), len(references))
    standings = {candidate: Standing(candidate) for candidate in candidates}
    alive, left, used = list(candidates), budget, 0
    rounds = _rounds(len(candidates))
    for rung in range(rounds):
        least = len(alive) * min(MIN_RUNG_PRODUCTS, len(references)) if rung == 0 else 0
        batch, cost = _batch(alive, references, used, max(left // (rounds - rung), least), known)
        if not batch:
            break
        scores = draw([Trial(candidate, *shown) for shown in batch for candidate in alive])
        for trial, score in scores.items():
            standings[trial.candidate].scores.setdefault(trial.reference, []).append(score)
        used, left = used + len(batch), left - cost
        alive = sorted(alive, key=lambda candidate: -standings[candidate].mean)
        if rung < rounds - 1:
            alive = alive[: max(1, (len(alive) + 1) // 2)]
        for candidate in alive:
            standings[candidate].rung = rung + 1
    return sorted(standings.values(), key=lambda standing: (-standing.rung, -standing.mean))


def _batch(
    alive: Sequence[str], references: Sequence[str], used: int, allowance: int, known: Callable[[Trial], bool]
) -> tuple[list[tuple[str, int]], int]:
    """The next photos with their repeats that all who are alive can be drawn for, and how many images that costs."""
    batch: list[tuple[str, int]] = []
    cost = 0
    while True:
        repeat, place = divmod(used + len(batch), len(references))
        shown = (references[place], repeat)
        price = sum(not known(Trial(candidate, *shown)) for candidate in alive)
        if cost + price > allowance:
            return batch, cost
        batch.append(shown)
        cost += price
