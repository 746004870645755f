"""The search for the best prompt: what it costs, and that it finds it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from fashion_pipeline.core.prompts.search import (
    MIN_RUNG_PRODUCTS,
    BudgetError,
    Standing,
    Trial,
    affordable,
    require_budget,
    sample_order,
    seed_for,
    shortlist,
    successive_halving,
)


class Studio:
    """Scores a trial by the candidate's own quality, the product's difficulty, and a little noise of the pair."""

    def __init__(self, quality: Mapping[str, float], rng: np.random.Generator, noise: float = 0.0) -> None:
        self.quality, self.rng, self.noise = quality, rng, noise
        self.difficulty: dict[str, float] = {}
        self.trials: list[Trial] = []
        self.rounds: list[list[Trial]] = []

    def __call__(self, trials: Sequence[Trial]) -> dict[Trial, float]:
        self.trials += trials
        self.rounds.append(list(trials))
        return {t: self.quality[t.candidate] - self._of(t.reference) + self.noise * self.rng.normal() for t in trials}

    def _of(self, product: str) -> float:
        return self.difficulty.setdefault(product, float(self.rng.normal(0, 5)))


def names(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{k}" for k in range(n)]


def random_cases(n: int = 150):
    rng = np.random.default_rng(7)
    for _ in range(n):
        candidates, photos = names("c", int(rng.integers(1, 20))), names("p", int(rng.integers(1, 60)))
        least = len(candidates) * min(MIN_RUNG_PRODUCTS, len(photos))
        yield candidates, photos, least + int(rng.integers(0, 300)), rng


def test_the_search_never_draws_more_than_its_budget_nor_anything_twice() -> None:
    for candidates, photos, budget, rng in random_cases():
        studio = Studio(dict.fromkeys(candidates, 0.0), rng, noise=1.0)
        standings = successive_halving(candidates, photos, budget, studio)
        assert len(studio.trials) <= budget
        assert len(set(studio.trials)) == len(studio.trials)
        assert sorted(standing.candidate for standing in standings) == sorted(candidates)
        assert sum(standing.images for standing in standings) == len(studio.trials)


def test_candidates_are_compared_on_the_same_photos_in_every_round() -> None:
    for candidates, photos, budget, rng in random_cases(50):
        studio = Studio({c: float(rng.normal()) for c in candidates}, rng)
        successive_halving(candidates, photos, budget, studio)
        for trials in studio.rounds:
            by_candidate = {c: [t[1:] for t in trials if t.candidate == c] for c, *_ in trials}
            assert len({tuple(drawn) for drawn in by_candidate.values()}) == 1


def test_the_best_prompt_is_found_although_photos_differ_more_than_prompts() -> None:
    for candidates, photos, budget, rng in random_cases():
        best = str(rng.choice(candidates))
        quality = {c: 0.5 if c == best else float(rng.uniform(-0.5, 0.4)) for c in candidates}
        assert successive_halving(candidates, photos, budget, Studio(quality, rng))[0].candidate == best


def test_the_best_prompt_is_mostly_found_when_images_are_noisy() -> None:
    rng = np.random.default_rng(0)
    candidates, found = names("c", 8), 0
    for _ in range(100):
        studio = Studio({c: float(c == "c3") for c in candidates}, rng, noise=1.0)
        found += successive_halving(candidates, names("p", 100), 192, studio)[0].candidate == "c3"
    assert found >= 90


def test_the_finalists_are_compared_on_more_photos_than_those_who_left_early() -> None:
    rng = np.random.default_rng(0)
    studio = Studio({c: k / 10 for k, c in enumerate(names("c", 8))}, rng)
    first, second, *_, last = successive_halving(names("c", 8), names("p", 200), 192, studio)
    assert (first.candidate, second.candidate, last.candidate) == ("c7", "c6", "c0")
    assert len(first.scores) == len(second.scores) > 2 * len(last.scores)
    assert first.rung == second.rung > last.rung


def test_a_budget_that_cannot_compare_all_prompts_is_refused_before_anything_is_drawn() -> None:
    studio = Studio({}, np.random.default_rng(0))
    with pytest.raises(BudgetError, match="a budget of 11 images cannot compare 3 prompts: allow 12 or more"):
        successive_halving(names("c", 3), names("p", 9), 11, studio)
    assert studio.trials == []


def test_the_smallest_budget_that_the_message_names_is_enough() -> None:
    quality = {"c0": 0.0, "c1": 1.0, "c2": 0.0}
    standings = successive_halving(list(quality), names("p", 9), 12, Studio(quality, np.random.default_rng(0)))
    assert standings[0].candidate == "c1"


def test_fewer_photos_than_a_round_wants_are_all_used() -> None:
    quality = {"c0": 0.0, "c1": 1.0}
    standings = successive_halving(list(quality), ["only"], 100, Studio(quality, np.random.default_rng(0)))
    assert [(s.candidate, len(s.scores)) for s in standings] == [("c1", 1), ("c0", 1)]


def test_a_small_style_spends_its_budget_on_further_seeds() -> None:
    studio = Studio({"c0": 0.0, "c1": 1.0, "c2": 0.5}, np.random.default_rng(0), noise=0.1)
    standings = successive_halving(list(studio.quality), names("p", 24), 192, studio)
    assert 192 - len(studio.trials) < 3 and len(set(studio.trials)) == len(studio.trials)
    assert {trial.repeat for trial in studio.trials} == {0, 1, 2, 3}
    assert standings[0].candidate == "c1" and len(standings[0].scores) == 24


def test_a_photo_drawn_more_often_counts_once() -> None:
    assert Standing("c", {"p": [0.0, 0.0, 0.0], "q": [1.0]}).mean == 0.5


def test_a_candidate_that_was_never_drawn_ranks_below_every_other() -> None:
    assert Standing("new").mean < Standing("bad", {"p": [-1.0]}).mean


def test_a_product_has_the_same_seed_for_every_prompt_and_another_for_every_repeat() -> None:
    assert seed_for("p1", 0) == seed_for("p1", 0)
    seeds = {seed_for(f"p{k}", repeat) for k in range(50) for repeat in range(3)}
    assert len(seeds) == 150 and all(0 <= seed < 2**31 for seed in seeds)


def test_seeds_are_those_of_earlier_versions_so_that_stored_images_are_found_again() -> None:
    assert seed_for("p1", 0) == 605270791


def test_a_larger_sample_keeps_the_smaller_one_and_ignores_how_the_ids_were_sorted() -> None:
    ids = names("p", 40)
    assert sample_order(ids, "dev") == sample_order(ids[::-1], "dev") != ids
    assert sample_order(ids, "dev") != sample_order(ids, "test")
    without_last = [p for p in sample_order(ids, "dev") if p != "p39"]
    assert without_last == sample_order(ids[:-1], "dev")


def test_a_budget_pays_for_as_many_prompts_as_can_be_compared_and_never_fewer_than_two() -> None:
    for photos in (1, 3, 40):
        for candidates in (1, 2, 3, 12, 60):
            paid = [affordable(budget, candidates, photos) for budget in range(0, 600, 7)]
            assert paid == sorted(paid) and min(paid) >= min(candidates, 2) and max(paid) <= candidates
            for budget, n in zip(range(0, 600, 7), paid, strict=True):
                if n > 2:
                    require_budget(budget, n, photos)
    assert affordable(192, 60, 40) == 12
    assert affordable(10_000, 60, 40) == 60


def test_the_shortlist_has_who_must_compete_and_then_the_best_by_text() -> None:
    assert shortlist(["a", "b", "c", "d"], ["c", "plain", "c"], 4) == ["c", "plain", "a", "b"]
    assert shortlist(["a"], ["x", "y", "z"], 2) == ["x", "y", "z"]


def test_what_an_earlier_round_drew_costs_nothing_and_lets_the_search_look_further() -> None:
    quality = {f"c{k}": k / 10 for k in range(6)}
    earlier = Studio(quality, np.random.default_rng(0))
    successive_halving(list(quality), names("p", 60), 96, earlier)
    known = set(earlier.trials)
    again = Studio(quality, np.random.default_rng(0))
    standings = successive_halving(list(quality), names("p", 60), 96, again, known.__contains__)
    new = [trial for trial in again.trials if trial not in known]
    assert len(new) <= 96 and len(again.trials) > 96
    assert standings[0].candidate == "c5"


def test_a_round_in_which_everything_is_known_ends() -> None:
    quality = {"c0": 0.0, "c1": 1.0}
    known = {Trial(c, "p0", repeat) for c in quality for repeat in range(5)}
    studio = Studio(quality, np.random.default_rng(0))
    successive_halving(list(quality), ["p0"], 8, studio, known.__contains__)
    assert len([trial for trial in studio.trials if trial not in known]) <= 8
