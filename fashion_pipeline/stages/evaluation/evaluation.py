"""Stage 8: original against specialised model, and against the published one, on photos nothing was chosen on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from fashion_pipeline.core.evaluation.attribute_gains import attribute_gains
from fashion_pipeline.core.evaluation.decisions import WORDS, Decision, PublishWhen, decide_publishing
from fashion_pipeline.core.evaluation.report import EvaluationReport, Judgement
from fashion_pipeline.core.evaluation.scores import HELD_OUT, product_scores
from fashion_pipeline.core.evaluation.verdicts import AFTER, BEFORE, CHAMPION, SPLIT, Verdict, decide
from fashion_pipeline.core.names import PIPELINE, REPORT, REPORT_PAGE
from fashion_pipeline.core.prompts.formats import Candidate, write
from fashion_pipeline.core.prompts.planning import Shot, photos_of, plan
from fashion_pipeline.core.reports.figures import summary
from fashion_pipeline.core.rows import Model, Photo, Role, Sample, Score, Split, rows_of
from fashion_pipeline.core.tables import rows_to_table
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.stages.catalog.features import photo_attributes
from fashion_pipeline.stages.drawing.base import prompt_fits, require_base
from fashion_pipeline.stages.drawing.drawing import Report, Studio
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.evaluation.equal_cost import best_of_scores, plan_seeds
from fashion_pipeline.stages.evaluation.forgetting import forgetting_scores, plan_others
from fashion_pipeline.stages.evaluation.memorisation import find_copies, trained_photos
from fashion_pipeline.stages.evaluation.recognition import recognise
from fashion_pipeline.stages.evaluation.sets import prints_of, set_scores
from fashion_pipeline.stages.pages.reports import evaluation_page
from fashion_pipeline.stages.prompts.candidates import candidate_of
from fashion_pipeline.stages.prompts.similarity import Measured, measure
from fashion_pipeline.stages.standing.retraining import settings_state
from fashion_pipeline.stages.training.training import trained_ids
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

EXTRA_SHARE = 4
"""One dev product in so many is drawn with more seeds, and as many of other styles with their prompts."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluation and its verdict."""

    record: Record
    report: EvaluationReport
    decision: Decision
    scores: pa.Table
    drawn: int
    products: int
    """Products of dev that were compared."""
    missing: list[str]
    """Conditions that should have been scored and were not; none is right."""
    measured: Measured


@dataclass(frozen=True)
class Challenger:
    """What is evaluated: weights, and the photos that they have seen."""

    name: str
    """Of the version that it would be."""
    catalog: Record
    features: Record
    searched: Record | None
    trained: Sequence[Photo]
    images: int
    """Those photos and the generated images that it was trained on beside them."""
    recipe: Recipe
    """By which the photos were fitted to the model's size."""
    folder: Path | None = None
    """Of a complete pipeline; None for the profile's own."""
    lora: Path | None = None
    """A file that is merged into it."""


@dataclass(frozen=True)
class Comparison:
    """What an evaluation found."""

    report: EvaluationReport
    tables: dict[str, pa.Table]
    verdict: Verdict
    decision: Decision
    measured: Measured
    drawn: int
    products: int
    missing: list[str]


@dataclass(frozen=True)
class _Contestant:
    name: str
    folder: Path | None
    shots: Sequence[Shot]
    lora: Path | None = None


def evaluate(
    store: Store,
    models: Models,
    style: str,
    *,
    products: int,
    report: Report,
    publish_when: PublishWhen = WORDS,
    run: str = "",
) -> Evaluated:
    """Draw all models with the same prompts, products and seeds, and decide.

    The training, the search and the published version are read once, at the start; what is published later is what was
    evaluated here.
    """
    model = store.records.latest("model", style)
    settings = settings_state(store, models.profile, style)
    training = store.records.input(model, "training")
    require_base(models, training.made_of, f"model {model.key} of {style!r}")
    searched = store.records.newest("search", style)
    catalog = store.records.input(training, "catalog")
    challenger = Challenger(
        training.key,
        catalog,
        store.records.input(training, "features"),
        searched,
        trained_photos(store, training, store.photos(catalog)),
        len(trained_ids(store, training)),
        Recipe.among(training.made_of),
        folder=model.path(PIPELINE),
    )
    comparison = compare(store, models, challenger, products, report, publish_when)
    content, tables = comparison.report, comparison.tables
    inputs = {"model": model, "training": training, "catalog": catalog}
    inputs |= {"search": searched} if searched else {}
    record = store.records.add(
        "evaluation",
        style,
        inputs=inputs,
        made_of={"products": products, "report": comparison.report.as_json(), **comparison.measured.made_of()},
        tables=comparison.tables,
        files={
            REPORT: content.as_json(),
            REPORT_PAGE: lambda path: evaluation_page(
                store, models, path, inputs, tables, content, comparison.verdict, comparison.decision, run
            ),
        },
        run=run,
    )
    store.sources.mark(style, "evaluation", settings)
    scores = comparison.tables["scores"]
    figures = (comparison.drawn, comparison.products, comparison.missing, comparison.measured)
    return Evaluated(record, comparison.report, comparison.decision, scores, *figures)


def compare(
    store: Store,
    models: Models,
    challenger: Challenger,
    products: int,
    report: Report,
    publish_when: PublishWhen = WORDS,
) -> Comparison:
    """The challenger against the original, and against the published version where there is another one."""
    style, catalog = challenger.catalog.style, challenger.catalog
    champion = store.versions.champion(style)
    champion = champion if champion and champion.name != challenger.name else None
    prompts = _prompts(store, models, style, challenger.searched)
    all_photos = store.photos(catalog)
    photos = {split: photos_of(all_photos, split, products) for split in HELD_OUT}
    contestants = _contestants(store, models, challenger, champion, prompts, photos)
    samples, drawn = _draw(store, models, contestants, report)
    judged = [sample for sample in samples if sample.purpose in HELD_OUT]
    measured = measure(store, models, catalog, [(each.id, each.reference) for each in samples], report)
    seen = recognise(store, models, catalog, judged, report)
    looks, nearest = _looks(store, models, challenger, all_photos, samples, measured, report)
    similarities = [
        *product_scores(rows_to_table("evaluation_samples", rows_of(samples)), measured.table),
        *seen.scores,
    ]
    scores = rows_to_table("scores", rows_of([*similarities, *looks]))
    verdict = decide(scores, sight=seen.sight)
    against = decide(scores, CHAMPION, seen.sight) if champion else None
    gains = attribute_gains(scores, _shown(store, models, challenger), AFTER, BEFORE, SPLIT)
    decision = decide_publishing(scores, seen.sight, publish_when, verdict, champion is not None)
    content = summary(
        scores,
        style=style,
        profile=models.profile.name,
        best=prompts[-1][1],
        guidance=models.profile.generation.guidance,
        verdict=verdict,
        plain_prompt=prompts[0][1].prompt,
        model=challenger.name,
        champion=champion.name if champion else None,
        garments_seen=dict(seen.sight),
        against_champion=Judgement.of(against) if against else None,
        attributes=[asdict(gain) for gain in gains],
        trained_photos=len(challenger.trained),
        trained_images=challenger.images,
        decision=decision,
    )
    return Comparison(
        content,
        {
            "evaluation_samples": rows_to_table("evaluation_samples", rows_of(samples)),
            "nearest": rows_to_table("nearest", nearest),
            "scores": scores,
        },
        verdict,
        decision,
        measured,
        drawn,
        len(photos[Split.DEV]),
        _missing(contestants, scores) if judged else [],
    )


def _looks(
    store: Store,
    models: Models,
    challenger: Challenger,
    photos: Sequence[Photo],
    samples: Sequence[Sample],
    measured: Measured,
    report: Report,
) -> tuple[list[Score], list[dict[str, Any]]]:
    """All that is measured of embedded samples beside their similarity, and the rows of table `nearest`."""
    style, used = challenger.catalog.style, measured.models
    prints = prints_of(store, samples)
    real = store.features.index(style, Role.JUDGE, used[Role.JUDGE])
    drawn = store.sample_features.index(style, Role.JUDGE, used[Role.JUDGE])
    seen = (photos, challenger.trained, challenger.recipe)
    copies = find_copies(store, models, style, *seen, samples, prints, report)
    search = [photo for photo in photos if photo.split == Split.SEARCH]
    scores = [
        *set_scores(samples, prints, real, drawn),
        *copies.scores,
        *best_of_scores(store, style, samples, measured.table, used, search),
        *forgetting_scores(store, style, samples, used),
    ]
    return scores, copies.rows


def _contestants(
    store: Store,
    models: Models,
    challenger: Challenger,
    champion: Path | None,
    prompts: list[tuple[str, Candidate]],
    photos: dict[Split, list[Photo]],
) -> list[_Contestant]:
    """Who draws what: both models all, a published version only what the verdict compares it by."""
    extra = len(photos[Split.DEV]) // EXTRA_SHARE
    shots = [
        *(shot for split in photos for shot in plan(prompts, photos[split], split)),
        *plan_seeds(prompts[0][1], photos[Split.DEV][:extra]),
        *plan_others(store, models, challenger.catalog.style, extra),
    ]
    plain = [shot for split in photos for shot in plan(prompts[:1], photos[split], split)]
    original = _Contestant(Model.ORIGINAL, None, shots)
    specialised = replace(original, name=Model.SPECIALISED, folder=challenger.folder, lora=challenger.lora)
    return [original, specialised, *([_Contestant(Model.CHAMPION, champion, plain)] if champion else [])]


def _draw(store: Store, models: Models, contestants: Sequence[_Contestant], report: Report) -> tuple[list[Sample], int]:
    samples: list[Sample] = []
    drawn = 0
    for contestant in contestants:
        with models.image_generator(contestant.folder, contestant.lora) as generator:
            studio = Studio(store, generator, contestant.name, models.profile.generation, report)
            samples += studio.shoot(contestant.shots)
            drawn += studio.drawn
    return samples, drawn


def _missing(contestants: Sequence[_Contestant], scores: pa.Table) -> list[str]:
    """Conditions that should have been scored by encoder and judge and were not."""
    expected = {
        (contestant.name, shot.prompt_name, role.value)
        for contestant in contestants
        for shot in contestant.shots
        if shot.purpose in HELD_OUT
        for role in Role
    }
    scored = {(row["model"], row["prompt"], row["measure"]) for row in scores.to_pylist()}
    return [" ".join(cell) for cell in sorted(expected - scored)]


def _shown(store: Store, models: Models, challenger: Challenger) -> dict[str, dict[str, str]]:
    """Product → facet → value: what came with its photos, and else what the encoder finds likeliest."""
    attributes = photo_attributes(store, models, challenger.features)
    values_of: dict[str, dict[str, str]] = {}
    for photo in store.photos(challenger.catalog):
        values = {each.facet: each.value for each in attributes.get(photo.id, ())}
        values_of.setdefault(photo.product_group, {}).update(values | dict(photo.attributes))
    return values_of


def _prompts(store: Store, models: Models, style: str, searched: Record | None) -> list[tuple[str, Candidate]]:
    """The plain and the best prompt; plain twice without a search."""
    plain = write("plain", store.sources.subject(style), [], prompt_fits(models))
    leaders = searched.table("leaderboard").slice(0, 1).to_pylist() if searched else []
    if not leaders:
        return [("plain", plain), ("best", plain)]
    best = candidate_of(leaders[0])
    return [("plain", plain), ("best", best)]
