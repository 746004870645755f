"""Stage 4: the search spends its budget of images, and the winner is drawn anew for photos it never saw.

Four questions share the budget. What draws the style, of hundreds of prompts looked at with few steps? Which of the
closest stands for it? At which guidance scale does that draw best? And which format writes the best prompt for each
photo by itself, as a training caption? Looks are paid for by their denoising steps, of which an image takes many.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fashion_pipeline.core.evaluation.statistics import bootstrap
from fashion_pipeline.core.features.embeddings import FeatureIndex
from fashion_pipeline.core.features.similarity import mean_similarity, paired_cosines
from fashion_pipeline.core.prompts.formats import FORMATS, Candidate
from fashion_pipeline.core.prompts.growing import words_of
from fashion_pipeline.core.prompts.lessons import phrase_effects, progress
from fashion_pipeline.core.prompts.planning import Shot, photos_of, plan
from fashion_pipeline.core.prompts.proposals import kept_out
from fashion_pipeline.core.prompts.requests import Drawing
from fashion_pipeline.core.prompts.search import (
    MIN_RUNG_PRODUCTS,
    Standing,
    Trial,
    affordable,
    by_candidate,
    require_budget,
    seed_for,
    shortlist,
    successive_halving,
)
from fashion_pipeline.core.prompts.strategies import GUIDANCE_FACTORS, MOST_WINNERS, with_guidance
from fashion_pipeline.core.rows import Model, Photo, Role, Sample, Split, rows_of
from fashion_pipeline.stages.drawing.base import prompt_fits
from fashion_pipeline.stages.drawing.drawing import Embedder, Report, Studio
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.candidates import candidate_of, earlier_search, read_candidates, search_photos
from fashion_pipeline.stages.prompts.captions import own_prompts
from fashion_pipeline.stages.prompts.looks import Explored, Looker, explore, most_telling
from fashion_pipeline.stages.prompts.proposing import Proposer
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

if TYPE_CHECKING:
    from fashion_pipeline.ml.encoders import ClipEncoder

PLAIN = "plain"
BEST = "best"

PROPOSALS = "proposals.json"
"""File of a search: what a language model was asked, answered, and which prompts of it were taken."""

LOOKS_SHARE = 3
"""The denoising steps of one image of so many are spent on looks."""

FORMATS_SHARE = 4
"""One image of so many is spent on the formats."""

GUIDANCE_SHARE = 6
"""One image of so many is spent on the guidance scale of the best prompt."""

LEFT_BEHIND = -1
"""Rung of a candidate that only earlier rounds drew."""


@dataclass(frozen=True)
class Searched:
    """What a search found."""

    record: Record
    samples: list[Sample]
    """Of this round, of those before, and of the held-out photos."""
    best: Candidate
    drawn: int
    spent: int
    """Images that this round rests on and that no earlier one had drawn; looks by their denoising steps."""
    looked_at: int
    """Prompts that were looked at before."""


def search(
    store: Store, models: Models, style: str, *, budget: int, held_out_products: int, report: Report, run: str = ""
) -> Searched:
    """Find the best candidate and format within a budget of images; draw best and plain prompt for dev and test.

    What earlier rounds drew costs nothing and counts. Raises BudgetError, before any model is loaded, for a budget that
    cannot compare two prompts.
    """
    written = store.records.latest("candidates", style)
    catalog = store.records.input(written, "catalog")
    photos = store.photos(catalog)
    references = {photo.id: photo for photo in photos_of(photos, Split.SEARCH)}
    earlier, candidates = earlier_search(store, written), read_candidates(written)
    formats = _formats(store, models, written, budget, len(references))
    for_format = budget // FORMATS_SHARE if formats else 0
    for_guidance = _for_guidance(budget, len(references))
    require_budget(budget - for_format - for_guidance, min(2, len(candidates)), len(references))
    drawing = models.profile.generation
    with models.image_generator() as generator, models.encoder() as encoder:
        studio = Studio(store, generator, Model.ORIGINAL, drawing, report)
        real = store.features.index(style, Role.ENCODER, encoder.fingerprint)
        rows = real.rows([photo.id for photo in search_photos(store, catalog)])
        looker = Looker(store, models.profile, generator, encoder, rows.mean(axis=0), report)
        proposer = Proposer(store, models.profile, style, report) if models.profile.proposer else None
        explored = _explored(store, models, looker, encoder, rows, written, candidates, budget // LOOKS_SHARE, proposer)
        candidates |= explored.candidates | candidates
        for_style = budget - for_format - for_guidance - _paid(explored, looker, drawing)
        competing = _competing(written, candidates, explored, earlier, for_style, len(references))
        embedder = Embedder(store.sample_features, style, Role.ENCODER, encoder, report, models.workers)
        before = _drawn_before(earlier, generator.identity().generator, drawing, references)
        round_ = _Round(store, studio, embedder, real, references, before)
        standings = round_.hold(competing, lambda trial: candidates[trial.candidate], for_style)
        by_format = round_.hold(list(formats), lambda t: formats[t.candidate][t.reference], for_format)
        phrases, steps = _lessons(standings, candidates), _progress(round_, candidates, competing)
        if for_guidance:
            scales = with_guidance(candidates[standings[0].candidate], drawing.guidance)
            candidates |= {each.id: each for each in scales}
            standings = _at_scales(round_, standings, [each.id for each in scales], candidates, for_guidance)
        best = candidates[standings[0].candidate]
        pooled = by_candidate(round_.scored())
        leaderboard = [
            _row(replace(each, scores=pooled.get(each.candidate, {})), candidates[each.candidate]) for each in standings
        ]
        leaderboard += _left_behind(pooled, earlier, [each.candidate for each in standings])
        pair = [(PLAIN, plain_candidate(candidates)), (BEST, best)]
        held_out = [
            sample
            for split in (Split.DEV, Split.TEST)
            for sample in studio.shoot(plan(pair, photos_of(photos, split, held_out_products), split))
        ]
        made_of = {
            "budget": budget,
            "held_out_products": held_out_products,
            "generator": generator.identity().generator,
            "encoder": encoder.fingerprint,
            "drawing": drawing.model_dump(),
            "look steps": looker.drawn.steps,
        }
    samples = [*round_.samples.values(), *held_out]
    record = store.records.add(
        "search",
        style,
        inputs={"candidates": written, "catalog": catalog},
        made_of=made_of,
        tables={
            "samples": rows_of(samples),
            "leaderboard": leaderboard,
            "explored": explored.rows(),
            "formats": [{"format": each.candidate, **figures_of(each)} for each in by_format],
            "phrases": phrases,
            "progress": steps,
        },
        files={PROPOSALS: {"exchanges": proposer.exchanges}} if proposer else None,
        run=run,
    )
    spent = round_.spent + _paid(explored, looker, drawing)
    return Searched(record, samples, best, studio.drawn, spent, len(explored.seen))


def _explored(
    store: Store,
    models: Models,
    looker: Looker,
    encoder: "ClipEncoder",
    rows: NDArray[np.float32],
    written: Record,
    candidates: Mapping[str, Candidate],
    budget: int,
    proposer: Proposer | None,
) -> Explored:
    """Hundreds of prompts, looked at with the denoising steps of `budget` images; those closest by text come first."""
    subject, vocabulary = store.sources.subject(written.style), models.vocabulary()
    texts = _text_similarities(written)
    first = sorted(candidates.values(), key=lambda each: (not _is_format(each), -texts[each.id]))
    is_kept_out = kept_out(models.profile.looks.never)
    allowed = [word for word in words_of(vocabulary, subject) if not is_kept_out(word.phrase)]
    words = most_telling(allowed, lambda phrases: mean_similarity(encoder.embed_texts(phrases), rows).tolist())
    images = budget * models.profile.generation.steps // looker.drawn.steps
    usual = [each for each in first if each.guidance is None]
    return explore(looker, usual, words, subject, prompt_fits(models), images, proposer)


def _paid(explored: Explored, looker: Looker, drawing: Drawing) -> int:
    """Images that could have been drawn with the denoising steps of the looks."""
    return -(-explored.images * looker.drawn.steps // drawing.steps)


def _text_similarities(written: Record) -> dict[str, float]:
    return {row["id"]: row["text_similarity"] for row in written.table("candidates").to_pylist()}


def plain_candidate(candidates: Mapping[str, Candidate]) -> Candidate:
    """The prompt that names nothing but the style."""
    return next(c for c in candidates.values() if c.strategy == PLAIN and not c.is_varied)


class _Round:
    """Draws trials with the original model, scores them by the encoder, and keeps what it rests on."""

    def __init__(
        self,
        store: Store,
        studio: Studio,
        embedder: Embedder,
        real: FeatureIndex,
        references: Mapping[str, Photo],
        before: Sequence[Sample],
    ) -> None:
        self._store, self._studio, self._embedder, self._real = store, studio, embedder, real
        self._references = references
        self.samples: dict[str, Sample] = {sample.id: sample for sample in before}
        """By id: those of earlier rounds, then those of this one."""
        self._before = len(self.samples)
        self._cosines: dict[str, float] = {}
        self._known = {(sample.candidate, sample.reference, sample.seed) for sample in before}

    @property
    def spent(self) -> int:
        """Images that no earlier round had drawn."""
        return len(self.samples) - self._before

    def hold(self, candidates: Sequence[str], prompt: Callable[[Trial], Candidate], budget: int) -> list[Standing]:
        """Compare candidates within a budget; `prompt` is what a trial draws. Best first; empty without candidates."""
        if not candidates:
            return []

        def draw(trials: Sequence[Trial]) -> Mapping[Trial, float]:
            drawn = self._studio.shoot([self._shot(trial, prompt(trial)) for trial in trials])
            self.samples |= {sample.id: sample for sample in drawn}
            self._known |= {(sample.candidate, sample.reference, sample.seed) for sample in drawn}
            return dict(zip(trials, self.cosines(drawn), strict=True))

        def known(trial: Trial) -> bool:
            seed = seed_for(self._references[trial.reference].product_group, trial.repeat)
            return (prompt(trial).id, trial.reference, seed) in self._known

        return successive_halving(candidates, list(self._references), budget, draw, known)

    def scored(self) -> list[tuple[str, str, float]]:
        """(candidate, photo, cosine) of every image in the order of drawing, those of earlier rounds first."""
        samples = list(self.samples.values())
        cosines = self.cosines(samples)
        return [(each.candidate, each.reference, cosine) for each, cosine in zip(samples, cosines, strict=True)]

    def _shot(self, trial: Trial, candidate: Candidate) -> Shot:
        return Shot(candidate, self._references[trial.reference], Split.SEARCH, candidate.strategy, trial.repeat)

    def cosines(self, samples: Sequence[Sample]) -> list[float]:
        """The encoder's cosine of each sample to its photo."""
        new = [sample for sample in samples if sample.id not in self._cosines]
        ids = [sample.id for sample in new]
        drawn = self._embedder.embed(ids, self._store.samples.location).rows(ids)
        values = paired_cosines(drawn, self._real.rows([sample.reference for sample in new]))
        self._cosines |= zip(ids, values.tolist(), strict=True)
        return [self._cosines[sample.id] for sample in samples]


def _competing(
    written: Record,
    candidates: Mapping[str, Candidate],
    explored: Explored,
    earlier: Record | None,
    budget: int,
    references: int,
) -> list[str]:
    """The candidates that images are spent on, where the budget cannot pay all: those whose looks came closest.

    Those that were not looked at come after them: the formats, then the closest texts. Text similarity alone would
    leave out the prompts that name most, which on `ethnic` draw best.
    """
    texts, looked_at = _text_similarities(written), list(explored.candidates)
    others = [each for each in candidates if each not in explored.candidates]
    ranked = looked_at + sorted(others, key=lambda each: (not _is_format(candidates[each]), -texts[each]))
    winners = [row["candidate"] for row in earlier.table("leaderboard").to_pylist()] if earlier else []
    first = [
        plain_candidate(candidates).id,
        *(each for each in candidates if candidates[each].strategy == "handwritten"),
        *[each for each in winners if each in candidates][:MOST_WINNERS],
    ]
    chosen = shortlist(ranked, first, affordable(budget, len(candidates), references))
    require_budget(budget, len(chosen), references)
    return chosen


def _is_format(candidate: Candidate) -> bool:
    return candidate.strategy in FORMATS and not candidate.is_varied


def _for_guidance(budget: int, references: int) -> int:
    """Images for the guidance scale; none where they could not compare those that are tried."""
    share = budget // GUIDANCE_SHARE
    return share if share >= (1 + len(GUIDANCE_FACTORS)) * min(MIN_RUNG_PRODUCTS, references) else 0


def _at_scales(
    round_: _Round,
    standings: Sequence[Standing],
    scales: Sequence[str],
    candidates: Mapping[str, Candidate],
    budget: int,
) -> list[Standing]:
    """The standings after the winner was drawn at other guidance scales; those come first, with its rung and more."""
    winner = standings[0]
    tried = round_.hold([winner.candidate, *scales], lambda trial: candidates[trial.candidate], budget)
    first = [replace(each, rung=winner.rung + each.rung) for each in tried]
    return first + [each for each in standings[1:] if each.candidate not in scales]


def _formats(
    store: Store, models: Models, written: Record, budget: int, references: int
) -> dict[str, dict[str, Candidate]]:
    """Format → photo → its own prompt; empty where all write the same, or the budget cannot compare them."""
    features = store.records.input(written, "features")
    prompts = {name: own_prompts(store, models, features, name) for name in FORMATS}
    told_apart = len({tuple(each.prompt for each in own.values()) for own in prompts.values()}) > 1
    paid = budget // FORMATS_SHARE >= len(FORMATS) * min(MIN_RUNG_PRODUCTS, references)
    return prompts if told_apart and paid else {}


def _drawn_before(
    earlier: Record | None, generator: str, drawing: Drawing, references: Mapping[str, Photo]
) -> list[Sample]:
    """The samples of earlier rounds for photos that are still searched on, as this round would draw them.

    By another model, in other steps, at another size or guidance scale a prompt draws something else.
    """
    if earlier is None:
        return []
    own_scale = {row["candidate"]: row["guidance"] for row in earlier.table("leaderboard").to_pylist()}
    side = (drawing.image_size, drawing.image_size)

    def same(sample: Sample) -> bool:
        own = own_scale.get(sample.candidate)
        guidance = drawing.guidance if own is None else own
        drawn = (sample.model, sample.steps, sample.guidance, (sample.width, sample.height))
        return drawn == (generator, drawing.steps, guidance, side)

    samples = Sample.read(earlier.table("samples"))
    return [s for s in samples if s.purpose == Split.SEARCH and s.reference in references and same(s)]


def _left_behind(
    pooled: Mapping[str, dict[str, list[float]]], earlier: Record | None, competing: Sequence[str]
) -> list[dict[str, object]]:
    """Rows of the candidates that only earlier rounds drew, best first."""
    rows = [
        _row(Standing(row["candidate"], pooled[row["candidate"]], LEFT_BEHIND), candidate_of(row))
        for row in (earlier.table("leaderboard").to_pylist() if earlier else ())
        if row["candidate"] not in competing and row["candidate"] in pooled
    ]
    return sorted(rows, key=lambda row: -float(str(row["mean"])))


def _lessons(standings: Sequence[Standing], candidates: Mapping[str, Candidate]) -> list[dict[str, object]]:
    """Rows of table `phrases`; candidates that differ in more than phrases are left out."""
    scores = {
        each.candidate: {photo: float(np.mean(cosines)) for photo, cosines in each.scores.items()}
        for each in standings
        if not candidates[each.candidate].is_varied and candidates[each.candidate].strategy != "handwritten"
    }
    effects = phrase_effects(scores, {candidate: candidates[candidate].phrases for candidate in scores})
    return [
        {
            "phrase": effect.phrase,
            "candidates": effect.candidates,
            "products": effect.gain.n,
            "gain": effect.gain.mean,
            "low": effect.gain.low,
            "high": effect.gain.high,
        }
        for effect in effects
    ]


def _progress(round_: _Round, candidates: Mapping[str, Candidate], competing: Sequence[str]) -> list[dict[str, object]]:
    """Rows of table `progress`, over the images of all rounds in the order of drawing."""
    scored = [each for each in round_.scored() if each[0] in competing]
    return [asdict(step) for step in progress(scored, plain_candidate(candidates).id)]


def _row(standing: Standing, candidate: Candidate) -> dict[str, object]:
    described = {name: getattr(candidate, name) for name in ("strategy", "prompt", "negative_prompt", "guidance")}
    return {"candidate": candidate.id, **described, **figures_of(standing)}


def figures_of(standing: Standing) -> dict[str, object]:
    """What tables `leaderboard` and `formats` say of a standing."""
    interval = bootstrap(standing.by_reference)
    return {
        "images": standing.images,
        "products": interval.n,
        "mean": standing.mean,
        "low": interval.low,
        "high": interval.high,
        "rung": standing.rung,
    }
