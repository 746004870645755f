"""Stage 8: original against specialised model, and against the published one, on photos nothing was chosen on."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from fashion_pipeline.core.evaluation.scores import product_scores
from fashion_pipeline.core.evaluation.verdicts import CHAMPION, Verdict, decide
from fashion_pipeline.core.prompts.formats import Candidate, write
from fashion_pipeline.core.prompts.planning import Shot, photos_of, plan
from fashion_pipeline.core.reports.report import summary
from fashion_pipeline.core.rows import Model, Photo, Role, Sample, Split, rows_of
from fashion_pipeline.core.tables import rows_to_table
from fashion_pipeline.stages.drawing import Report, Studio
from fashion_pipeline.stages.models import Models
from fashion_pipeline.stages.prompts import candidate_of
from fashion_pipeline.stages.recognition import recognise
from fashion_pipeline.stages.reports import PAGE, REPORT, evaluation_page
from fashion_pipeline.stages.similarity import Measured, measure
from fashion_pipeline.stages.training import MODEL
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store


@dataclass(frozen=True)
class Evaluated:
    """An evaluation and its verdict."""

    record: Record
    report: dict[str, Any]
    verdict: Verdict
    scores: pa.Table
    drawn: int
    products: int
    """Products of dev that were compared."""
    missing: list[str]
    """Conditions that should have been scored and were not; none is right."""
    measured: Measured


@dataclass(frozen=True)
class _Contestant:
    name: str
    folder: Path | None
    prompts: list[tuple[str, Candidate]]


def evaluate(store: Store, models: Models, style: str, *, products: int, report: Report, run: str = "") -> Evaluated:
    """Draw all models with the same prompts, products and seeds, and decide.

    The training, the search and the published version are read once, at the start; what is published later is what was
    evaluated here.
    """
    model = store.records.latest("model", style)
    training = store.records.input(model, "training")
    searched = store.records.newest("search", style)
    catalog = store.records.input(training, "catalog")
    champion = store.versions.champion(style)
    champion = champion if champion and champion.name != training.key else None
    prompts = _prompts(store, models, style, searched)
    photos = {split: photos_of(store.photos(catalog), split, products) for split in (Split.DEV, Split.TEST)}
    contestants = [
        _Contestant(Model.ORIGINAL, None, prompts),
        _Contestant(Model.SPECIALISED, model.path(MODEL), prompts),
    ]
    contestants += [_Contestant(Model.CHAMPION, champion, prompts[:1])] if champion else []
    samples, drawn = _draw(store, models, contestants, photos, report)
    measured = measure(store, models, catalog, samples, report)
    seen = recognise(store, models, catalog, samples, report)
    scores = rows_to_table("scores", rows_of([*product_scores(samples, measured.rows), *seen.scores]))
    verdict = decide(scores, sight=seen.sight)
    against = decide(scores, CHAMPION, seen.sight) if champion else None
    content = summary(
        scores,
        style=style,
        profile=models.profile.name,
        best=prompts[-1][1],
        guidance=models.profile.generation.guidance,
        verdict=verdict,
    )
    content |= {
        "plain_prompt": prompts[0][1].prompt,
        "model": training.key,
        "champion": champion.name if champion else None,
        "garments_seen": {role: asdict(each) for role, each in seen.sight.items()},
        "against_champion": {"verdict": against.name, "reason": against.reason} if against else None,
    }
    inputs = {"model": model, "training": training, "catalog": catalog}
    inputs |= {"search": searched} if searched else {}
    tables = {"evaluation_samples": rows_to_table("evaluation_samples", rows_of(samples)), "scores": scores}
    record = store.records.add(
        "evaluation",
        style,
        inputs=inputs,
        made_of={"products": products, "report": content, **measured.made_of()},
        tables=tables,
        files={
            REPORT: content,
            PAGE: lambda path: evaluation_page(store, models, path, inputs, tables, verdict, seen.sight, run),
        },
        run=run,
    )
    expected = {(c.name, name, role.value) for c in contestants for name, _ in c.prompts for role in Role}
    scored = {(row["model"], row["prompt"], row["measure"]) for row in scores.to_pylist()}
    missing = [" ".join(cell) for cell in sorted(expected - scored)] if samples else []
    return Evaluated(record, content, verdict, scores, drawn, len(photos[Split.DEV]), missing, measured)


def _draw(
    store: Store, models: Models, contestants: list[_Contestant], photos: dict[Split, list[Photo]], report: Report
) -> tuple[list[Sample], int]:
    samples: list[Sample] = []
    drawn = 0
    for contestant in contestants:
        shots: list[Shot] = [s for split in photos for s in plan(contestant.prompts, photos[split], split)]
        with models.generator(contestant.folder) as generator:
            studio = Studio(store, generator, contestant.name, models.profile.generation, report)
            samples += studio.shoot(shots)
            drawn += studio.drawn
    return samples, drawn


def _prompts(store: Store, models: Models, style: str, searched: Record | None) -> list[tuple[str, Candidate]]:
    """The plain and the best prompt; plain twice without a search."""
    plain = write("plain", store.sources.subject(style), [], models.prompt_fits())
    leaders = searched.table("leaderboard").slice(0, 1).to_pylist() if searched else []
    if not leaders:
        return [("plain", plain), ("best", plain)]
    best = candidate_of(leaders[0])
    return [("plain", plain), ("best", best)]
