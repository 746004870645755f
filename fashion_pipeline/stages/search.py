"""Stage 4: the search spends its budget of images, and the winner is drawn anew for photos it never saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fashion_pipeline.core.evaluation.statistics import bootstrap
from fashion_pipeline.core.features.similarity import paired_cosines
from fashion_pipeline.core.prompts.planning import Shot, photos_of, plan
from fashion_pipeline.core.prompts.search import Standing, Trial, require_budget, successive_halving
from fashion_pipeline.core.prompts.strategies import Candidate
from fashion_pipeline.core.rows import Model, Photo, Role, Sample, Split, rows_of
from fashion_pipeline.stages.drawing import Embedder, Report, Studio
from fashion_pipeline.stages.models import Models
from fashion_pipeline.stages.prompts import read_candidates
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

PLAIN = "plain"
BEST = "best"


@dataclass(frozen=True)
class Searched:
    """What a search found."""

    record: Record
    samples: list[Sample]
    best: Candidate
    drawn: int
    spent: int
    """Images that the search itself rests on."""


def search(
    store: Store, models: Models, style: str, *, budget: int, held_out_products: int, report: Report, run: str = ""
) -> Searched:
    """Find the best candidate within a budget of images; draw it and the plain one for photos of dev and test.

    Raises BudgetError, before any model is loaded, for a budget that cannot compare the candidates.
    """
    written = store.records.latest("candidates", style)
    catalog = store.records.input(written, "catalog")
    candidates, photos = read_candidates(written), store.photos(catalog)
    references = {photo.id: photo for photo in photos_of(photos, Split.SEARCH)}
    require_budget(budget, len(candidates), len(references))
    drawing = models.profile.generation
    samples: list[Sample] = []
    with models.generator() as generator, models.encoder() as encoder:
        studio = Studio(store, generator, Model.ORIGINAL, drawing, report)
        real = store.features.index(style, Role.ENCODER, encoder.fingerprint)
        embedder = Embedder(store.sample_features, style, Role.ENCODER, encoder, report)

        def draw(trials: Sequence[Trial]) -> Mapping[Trial, float]:
            drawn = studio.shoot([_shot(trial, candidates, references) for trial in trials])
            samples.extend(drawn)
            ids = [sample.id for sample in drawn]
            embedded = embedder.embed({sample: str(store.samples.path(sample)) for sample in ids})
            cosines = paired_cosines(embedded.rows(ids), real.rows([trial.reference for trial in trials]))
            return dict(zip(trials, map(float, cosines), strict=True))

        standings = successive_halving(list(candidates), list(references), budget, draw)
        spent = len(samples)
        best = candidates[standings[0].candidate]
        pair = [(PLAIN, plain_candidate(candidates)), (BEST, best)]
        for split in (Split.DEV, Split.TEST):
            samples += studio.shoot(plan(pair, photos_of(photos, split, held_out_products), split))
        made_of = {
            "budget": budget,
            "held_out_products": held_out_products,
            "generator": generator.fingerprint,
            "encoder": encoder.fingerprint,
            "drawing": drawing.model_dump(),
        }
    record = store.records.add(
        "search",
        style,
        inputs={"candidates": written, "catalog": catalog},
        made_of=made_of,
        tables={
            "samples": rows_of(samples),
            "leaderboard": [_row(standing, candidates[standing.candidate]) for standing in standings],
        },
        run=run,
    )
    return Searched(record, samples, best, studio.drawn, spent)


def plain_candidate(candidates: Mapping[str, Candidate]) -> Candidate:
    """The prompt that names nothing but the style."""
    return next(candidate for candidate in candidates.values() if candidate.strategy == PLAIN)


def _shot(trial: Trial, candidates: Mapping[str, Candidate], photos: Mapping[str, Photo]) -> Shot:
    candidate = candidates[trial.candidate]
    return Shot(candidate, photos[trial.reference], Split.SEARCH, candidate.strategy, trial.repeat)


def _row(standing: Standing, candidate: Candidate) -> dict[str, object]:
    interval = bootstrap(standing.by_reference)
    return {
        "candidate": candidate.id,
        "strategy": candidate.strategy,
        "prompt": candidate.prompt,
        "negative_prompt": candidate.negative_prompt,
        "images": standing.images,
        "products": interval.n,
        "mean": standing.mean,
        "low": interval.low,
        "high": interval.high,
        "rung": standing.rung,
    }
