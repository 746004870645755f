"""What the prompt search is worth: its best prompt against the plain one and a smaller search, on held-out photos.

    python -m benchmarks.prompts STYLE … [--budget 192] [--products 128] [--control STYLE] [--exhaustive STYLE]

Needs styles that were described (`fashion-pipeline run --mode prompt`). For each of them the same number of denoising
steps is spent four times: by the search (`all`: looks at hundreds of prompts, all strategies, the guidance scale), by
the search without looks (`attributes`: what the encoder reads in the photos), by a choice among the prompts of three
strategies (`three`), and on 200 random combinations of the vocabulary, looked at in the same race (`random`, which
takes a fifth more). Then the plain and all best prompts are drawn for the same products of `dev` and `test` with the
same seeds. `--control` compares the plain prompt with itself, `--exhaustive` the search with one that draws every
candidate for every photo. What was drawn is not drawn again; tables go to `prompts/` in the data root.
"""

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from scipy.stats import permutation_test

from benchmarks.common import told, write_json
from benchmarks.looks import random_prompts
from fashion_pipeline.core.evaluation.scores import product_scores
from fashion_pipeline.core.evaluation.statistics import (
    Condition,
    Interval,
    paired,
    scores_of,
)
from fashion_pipeline.core.features.similarity import paired_cosines
from fashion_pipeline.core.prompts import strategies
from fashion_pipeline.core.prompts.formats import Candidate, write
from fashion_pipeline.core.prompts.growing import GROWN_SURVIVORS, race, race_cost
from fashion_pipeline.core.prompts.planning import Shot, photos_of, plan
from fashion_pipeline.core.prompts.search import Trial, affordable, successive_halving
from fashion_pipeline.core.rows import Model, Role, Sample, Split, rows_of
from fashion_pipeline.core.tables import rows_to_table
from fashion_pipeline.settings import read_settings
from fashion_pipeline.stages.drawing.base import prompt_fits
from fashion_pipeline.stages.drawing.drawing import Embedder, Studio
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.candidates import read_candidates, search_photos, write_candidates
from fashion_pipeline.stages.prompts.looks import Looker
from fashion_pipeline.stages.prompts.search import BEST, GUIDANCE_SHARE, LOOKS_SHARE, PLAIN, plain_candidate, search
from fashion_pipeline.stages.prompts.similarity import measure
from fashion_pipeline.store.store import Store

NONE = 10**6
"""A share of one image of so many: none."""


@dataclass(frozen=True)
class _Way:
    """What a search may spend its budget on."""

    strategies: tuple[str, ...]
    varies: bool = True
    """Negative prompts and the guidance scale."""
    looks: bool = True


SEARCHES = {
    "three": _Way(("plain", "all_attributes", "high_confidence_only"), varies=False, looks=False),
    "attributes": _Way(tuple(strategies.STRATEGIES), looks=False),
    "all": _Way(tuple(strategies.STRATEGIES)),
}
RANDOM = "random"
RANDOM_PROMPTS = 200
OTHERS = ("three", "attributes", RANDOM)
"""What the search is compared with."""

SPLITS = (Split.DEV, Split.TEST)
RESAMPLES = 200
REPEATS = 6
"""Seeds a product of the control."""


def main() -> None:
    """Draw and score what is not there yet, then print the tables."""
    given = _arguments()
    settings = read_settings()
    store, models = Store(settings.data), Models.of(settings)
    folder = settings.data / "prompts"
    folder.mkdir(exist_ok=True)
    found = {}
    for style in given.styles:
        file = folder / f"{style}-{given.budget}-{given.products}.json"
        found[style] = _compared(store, models, style, given.budget, given.products, file)
    tables = [_table(found)] if found else []
    tables += [_control(store, models, given.control, given.products)] if given.control else []
    tables += [_against_all(store, models, given.exhaustive, given.budget, given.products)] if given.exhaustive else []
    (folder / "results.md").write_text("\n".join(tables), encoding="utf-8")
    print("\n".join(tables))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("styles", nargs="*")
    parser.add_argument("--budget", type=int, default=192)
    parser.add_argument("--products", type=int, default=128)
    parser.add_argument("--control")
    parser.add_argument("--exhaustive")
    return parser.parse_args()


# The comparison


def _compared(store: Store, models: Models, style: str, budget: int, products: int, file: Path) -> dict[str, Any]:
    """What each way of a style found, and the scores of each product with the plain and all best prompts."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"scores": {}}
    for name in (*SEARCHES, RANDOM):
        if name in found:
            continue
        begun = time.monotonic()
        if name == RANDOM:
            winner, samples = _best_of_random(store, models, style, products)
        else:
            winner, samples = _searched(store, models, style, budget, products, SEARCHES[name])
        catalog = store.records.latest("catalog", style)
        measured = measure(store, models, catalog, [(s.id, s.reference) for s in samples], lambda text: None)
        scores = rows_to_table(
            "scores", rows_of(product_scores(rows_to_table("samples", rows_of(samples)), measured.table))
        )
        found[name] = winner | {"seconds": time.monotonic() - begun}
        for prompt, key in ((PLAIN, "plain"), (BEST, name)):
            for role, split, column in itertools.product(Role, SPLITS, ("value", "anchored")):
                cell = Condition(Model.ORIGINAL, prompt)
                if values := scores_of(scores, cell, measure=role, split=split, column=column):
                    found["scores"].setdefault(f"{role} {split} {column}", {})[key] = values
        write_json(file, found)
        print(f"{style}, {name}: {winner['prompt']!r} without {winner['negative']!r}", flush=True)
    return found


def _searched(
    store: Store, models: Models, style: str, budget: int, products: int, way: "_Way"
) -> tuple[dict[str, Any], list[Sample]]:
    """What a search finds, and its samples of held-out products with the plain and the best prompt."""
    rules = {rule: strategies.STRATEGIES[rule] for rule in way.strategies}
    negative = strategies.negative_prompt if way.varies else lambda view: ""
    with (
        mock.patch.dict(strategies.STRATEGIES, rules, clear=True),
        mock.patch("fashion_pipeline.stages.prompts.candidates.negative_prompt", negative),
        mock.patch("fashion_pipeline.stages.prompts.search.GUIDANCE_SHARE", GUIDANCE_SHARE if way.varies else NONE),
        mock.patch("fashion_pipeline.stages.prompts.search.LOOKS_SHARE", LOOKS_SHARE if way.looks else NONE),
    ):
        written = write_candidates(store, models, style)
        limits: dict[str, Any] = {"budget": budget, "held_out_products": products}
        made = search(store, models, style, **limits, report=lambda text: None)
    winner = _winner(made.best, made.record.table("leaderboard")["mean"][0].as_py())
    counts = {"candidates": len(written.candidates), "looked at": made.looked_at, "images": made.spent}
    return winner | counts, [sample for sample in made.samples if sample.purpose in SPLITS]


def _best_of_random(store: Store, models: Models, style: str, products: int) -> tuple[dict[str, Any], list[Sample]]:
    """The best of random combinations of the vocabulary by its looks, and its samples of held-out products."""
    catalog = store.records.latest("catalog", style)
    field = random_prompts(models, RANDOM_PROMPTS)
    with models.generator() as generator, models.encoder() as encoder:
        real = store.features.index(style, Role.ENCODER, encoder.fingerprint)
        centre = real.rows([photo.id for photo in search_photos(store, catalog)]).mean(axis=0)
        looker = Looker(store, models.profile, generator, encoder, centre, lambda text: None)
        best = race(field, looker.scores, GROWN_SURVIVORS)[0]
        studio = Studio(store, generator, Model.ORIGINAL, models.profile.generation, lambda text: None)
        samples = [
            sample
            for split in SPLITS
            for sample in studio.shoot(
                plan([(BEST, best.candidate)], photos_of(store.photos(catalog), split, products), split)
            )
        ]
    images = race_cost(len(field), GROWN_SURVIVORS) * looker.drawn.steps // models.profile.generation.steps
    counts = {"candidates": len(field), "looked at": len(field), "images": images}
    return _winner(best.candidate, best.score) | counts, samples


def _winner(best: Candidate, on_search: float) -> dict[str, Any]:
    return {
        "strategy": best.strategy,
        "prompt": best.prompt,
        "negative": best.negative_prompt,
        "guidance": best.guidance,
        "search": on_search,
    }


def _table(found: dict[str, dict[str, Any]]) -> str:
    """Two tables in Markdown: what the best prompt gains over the plain one, and over what each other way found."""
    lines = ["| style | best prompt (strategy) | n | plain | best | gain | judge | anchored gain |", "| --- " * 8 + "|"]
    for style, each in found.items():
        best, encoder = each["all"], each["scores"]["encoder test value"]
        without = f" · without {best['negative']}" if best["negative"] else ""
        cells = [
            style,
            f"{best['prompt']}{without} ({best['strategy']})",
            str(len(encoder["plain"])),
            f"{np.mean(list(encoder['plain'].values())):.3f}",
            f"{np.mean(list(encoder['all'].values())):.3f}",
            told(_gain(encoder, "all", "plain")),
            told(_gain(each["scores"]["judge test value"], "all", "plain")),
            told(_gain(each["scores"]["encoder test anchored"], "all", "plain")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for other in OTHERS:
        lines += [
            "",
            f"| style | best of `{other}` | its mean, test | encoder, dev | encoder, test | p, Holm | judge, test |",
        ]
        lines += ["| --- " * 7 + "|"]
        tests = [_sign_flip(*_pair(each["scores"]["encoder test value"], "all", other)) for each in found.values()]
        for (style, each), p in zip(found.items(), _holm(tests), strict=True):
            theirs, scores = each[other], each["scores"]
            gains = [_gain(scores[f"{by} value"], "all", other) for by in ("encoder dev", "encoder test", "judge test")]
            mean = np.mean(list(scores["encoder test value"][other].values()))
            cells = [f"{mean:.3f}", told(gains[0]), told(gains[1]), f"{p:.3f}", told(gains[2])]
            lines.append(f"| {style} | {theirs['prompt']} ({theirs['strategy']}) | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _sign_flip(after: Sequence[float], before: Sequence[float]) -> float:
    """The two-sided p-value of a mean difference of zero, by flipped signs (Fisher 1935)."""
    differences = np.subtract(after, before)
    return float(permutation_test((differences,), np.mean, permutation_type="samples", rng=0).pvalue)


def _holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several comparisons, in their order, corrected so that all of them together err at the level.

    Step-down correction (Holm 1979, Scandinavian Journal of Statistics 6).
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def _pair(scores: dict[str, dict[str, float]], after: str, before: str) -> tuple[list[float], list[float]]:
    common = sorted(scores[after].keys() & scores[before].keys())
    return [scores[after][key] for key in common], [scores[before][key] for key in common]


def _gain(scores: dict[str, dict[str, float]], after: str, before: str) -> Interval | None:
    pair = _pair(scores, after, before)
    return paired(*pair) if pair[0] else None


# Controls


def _control(store: Store, models: Models, style: str, products: int) -> str:
    """The plain prompt against itself with other seeds: how often the interval of the difference contains zero."""
    catalog = store.records.latest("catalog", style)
    photos = photos_of(store.photos(catalog), Split.DEV, products)
    plain = write("plain", store.sources.subject(style), [], prompt_fits(models))
    shots = [Shot(plain, photo, Split.DEV, "plain", repeat) for photo in photos for repeat in range(REPEATS)]
    cosines = np.reshape(_cosines(store, models, style, shots), (len(photos), REPEATS))
    rng = np.random.default_rng(0)
    contain = 0
    for resample in range(RESAMPLES):
        chosen = np.array([rng.permutation(REPEATS)[:2] for _ in photos])
        rows = np.arange(len(photos))
        gain = paired(cosines[rows, chosen[:, 0]], cosines[rows, chosen[:, 1]], seed=resample)
        contain += not (gain.above(0) or gain.below(0))
    return (
        f"A/A on {style}: {len(photos)} products of dev, {REPEATS} seeds each; two of them against each other, "
        f"{RESAMPLES} times: the interval contains zero in {contain}.\n"
    )


def _against_all(store: Store, models: Models, style: str, budget: int, products: int) -> str:
    """The search against drawing every candidate it is held with for every search photo."""
    written = write_candidates(store, models, style)
    candidates = read_candidates(written.record)
    texts = {row["id"]: row["text_similarity"] for row in written.record.table("candidates").to_pylist()}
    catalog = store.records.input(written.record, "catalog")
    photos = {photo.id: photo for photo in photos_of(store.photos(catalog), Split.SEARCH, 3 * budget // 12)}
    most = affordable(budget, len(candidates), len(photos))
    chosen = [plain_candidate(candidates).id, *sorted(candidates, key=lambda each: -texts[each])]
    chosen = list(dict.fromkeys(chosen))[:most]
    trials = [Trial(candidate, photo) for candidate in chosen for photo in photos]
    shots = [
        Shot(candidates[t.candidate], photos[t.reference], Split.SEARCH, candidates[t.candidate].strategy)
        for t in trials
    ]
    scores = dict(zip(trials, _cosines(store, models, style, shots), strict=True))
    means = {each: float(np.mean([scores[Trial(each, photo)] for photo in photos])) for each in chosen}
    spent: set[Trial] = set()

    def draw(asked: Sequence[Trial]) -> dict[Trial, float]:
        spent.update(asked)
        return {trial: scores[Trial(trial.candidate, trial.reference)] for trial in asked}

    winner = successive_halving(chosen, list(photos), len(trials) // 3, draw)[0].candidate
    best = max(means, key=lambda each: means[each])
    held_out = photos_of(store.photos(catalog), Split.DEV, products)
    pair = [_dev(store, models, style, candidates[each], held_out) for each in (winner, best)]
    gain = paired(*pair)
    error = float(np.std(pair[1], ddof=1) / np.sqrt(len(pair[1])))
    return (
        f"Exhaustive search on {style}: {len(chosen)} candidates x {len(photos)} photos = {len(trials)} images, best "
        f"{candidates[best].prompt!r}, dev {np.mean(pair[1]):.3f} (standard error {error:.3f}). Ours: {len(spent)} "
        f"images ({len(spent) / len(trials):.0%}), {candidates[winner].prompt!r}, dev {np.mean(pair[0]):.3f}; "
        f"difference {told(gain)} on {gain.n} products.\n"
    )


def _dev(store: Store, models: Models, style: str, candidate: Candidate, photos: Sequence[Any]) -> list[float]:
    return _cosines(store, models, style, plan([("best", candidate)], photos, Split.DEV))


def _cosines(store: Store, models: Models, style: str, shots: Sequence[Shot]) -> list[float]:
    """The encoder's cosine of what each shot draws to its photo."""
    with models.generator() as generator, models.encoder() as encoder:
        studio = Studio(store, generator, Model.ORIGINAL, models.profile.generation, lambda text: None)
        samples = studio.shoot(shots)
        real = store.features.index(style, Role.ENCODER, encoder.fingerprint)
        embedder = Embedder(store.sample_features, style, Role.ENCODER, encoder, lambda text: None)
        made = embedder.embed([sample.id for sample in samples], store.samples.location)
        ids = [sample.id for sample in samples]
        return list(map(float, paired_cosines(made.rows(ids), real.rows([s.reference for s in samples]))))


if __name__ == "__main__":
    main()
