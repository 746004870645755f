"""What the HTML pages and JSON reports show, collected from records; a page belongs to one record."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from fashion_pipeline.core.evaluation.decisions import Decision
from fashion_pipeline.core.evaluation.report import EvaluationReport, Judgement
from fashion_pipeline.core.evaluation.scores import product_scores
from fashion_pipeline.core.evaluation.statistics import Condition
from fashion_pipeline.core.evaluation.verdicts import AFTER, BEFORE, BEST_PROMPT, SPLIT, Verdict, decide, unseen
from fashion_pipeline.core.features.shuffling import Sight
from fashion_pipeline.core.features.similarity import within_similarity
from fashion_pipeline.core.names import PIPELINE, REPORT, REPORT_PAGE, TRAINING_RESULT, TRAINING_SAMPLES
from fashion_pipeline.core.reports import pictures
from fashion_pipeline.core.reports.figures import CONDITIONS, summary
from fashion_pipeline.core.reports.links import index_link, run_link, version_link
from fashion_pipeline.core.reports.panels import SHOWN_EXPLORED
from fashion_pipeline.core.reports.report import ComparisonRow, CopyPair, Lineage, Loading, ReportData, render_html
from fashion_pipeline.core.rows import Role, Sample, Split, rows_of
from fashion_pipeline.core.tables import rows_to_table
from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.intake.photos import PhotoError, open_photo
from fashion_pipeline.stages.catalog.features import sight_of
from fashion_pipeline.stages.drawing.drawing import Report
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.evaluation.recognition import recognise
from fashion_pipeline.stages.prompts.candidates import candidate_of
from fashion_pipeline.stages.prompts.looks import look_thumbnails
from fashion_pipeline.stages.publishing.cards import call_of, loading, parts_without
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store

SHOWN_PRODUCTS = 8
SHOWN_PAIRS = 8
THUMBNAILS = 4


@dataclass(frozen=True)
class Reported:
    """The report on a search."""

    record: Record
    report: EvaluationReport


def report_prompts(store: Store, models: Models, style: str, report: Report, run: str = "") -> Reported:
    """The best prompt of the newest search, and what it gains over the plain one on photos never searched on.

    Whether that helped is decided by the same rules as for a model.
    """
    similarity = store.records.latest("similarity", style)
    searched = store.records.input(similarity, "search")
    samples = Sample.read(searched.table("samples"))
    best = candidate_of(searched.table("leaderboard").slice(0, 1).to_pylist()[0])
    catalog = store.records.input(searched, "catalog")
    seen = recognise(store, models, catalog, [s for s in samples if s.purpose != Split.SEARCH], report)
    measured = product_scores(searched.table("samples"), similarity.table("similarities"))
    scores = rows_to_table("scores", rows_of([*measured, *seen.scores]))
    verdict = decide(scores, BEFORE, seen.sight, after=BEST_PROMPT)
    content = summary(
        scores,
        style=style,
        profile=models.profile.name,
        best=best,
        guidance=models.profile.generation.guidance,
        verdict=None,
        prompt_verdict=Judgement.of(verdict),
        garments_seen=dict(seen.sight),
    )
    inputs = {"similarity": similarity, "search": searched, "catalog": catalog}

    def page(path: Path) -> None:
        prompt_page(store, models, path, inputs, scores, verdict, seen.sight, run)

    record = store.records.add(
        "prompt_report",
        style,
        inputs=inputs,
        made_of={"report": content.as_json()},
        tables={"prompt_scores": scores},
        files={REPORT: content.as_json(), REPORT_PAGE: page},
        run=run,
    )
    return Reported(record, content)


def prompt_page(
    store: Store,
    models: Models,
    path: Path,
    inputs: Mapping[str, Record],
    scores: pa.Table,
    verdict: Verdict,
    sight: Mapping[str, Sight],
    run: str,
) -> None:
    """Write the page of a search."""
    searched = inputs["search"]
    data = _search_data(store, models, searched) | {"note": _unless(verdict.reason, unseen(sight))}
    rows = comparison_rows(store, inputs["catalog"], Sample.read(searched.table("samples")))
    parts = {"scores": scores, "rows": rows, "lineage": _lineage(models, inputs, run), "prompt_verdict": verdict}
    _write(path, ReportData(inputs["catalog"].style, models.profile.name, **parts, **data))


def evaluation_page(
    store: Store,
    models: Models,
    path: Path,
    inputs: Mapping[str, Record],
    tables: Mapping[str, pa.Table],
    content: EvaluationReport,
    verdict: Verdict,
    decision: Decision | None,
    run: str,
) -> None:
    """Write the page of an evaluation that is being recorded.

    Weights that were trained elsewhere have no training behind them, and no decision: they are never published.
    """
    training, searched = inputs.get("training"), inputs.get("search")
    searched_data = (_search_data(store, models, searched) if searched else {}) | {
        "note": _unless(verdict.reason, unseen(content.garments_seen))
    }
    samples = Sample.read(tables["evaluation_samples"])
    data = ReportData(
        style=inputs["catalog"].style,
        profile=models.profile.name,
        verdict=verdict,
        decision=decision,
        model=_loading(store, models, inputs, content),
        links=_links(content, decision, run),
        scores=tables["scores"],
        rows=comparison_rows(store, inputs["catalog"], samples),
        equal_cost=content.equal_cost,
        attributes=content.attributes,
        copies=copy_pairs(store, inputs["catalog"], samples, tables["nearest"]),
        lineage=_lineage(models, inputs, run),
        **(_training_data(training) if training else {}),
        **searched_data,
    )
    _write(path, data)


def _loading(store: Store, models: Models, inputs: Mapping[str, Record], content: EvaluationReport) -> Loading | None:
    """How the model of an evaluation is loaded; None for weights that were trained elsewhere."""
    if "model" not in inputs or content.model is None:
        return None
    style, published = content.style, content.decision is not None and content.decision.publish
    folder = store.versions.folder(style, content.model) if published else inputs["model"].folder / PIPELINE
    call = call_of(content.recommended(), models.profile.generation.guidance)
    code = (
        "from diffusers import DiffusionPipeline\n"
        f"pipeline = {loading(str(folder), parts_without(inputs['model'].folder / PIPELINE))}\n"
        f'pipeline({call}).images[0].save("{style}.png")'
    )
    return Loading(str(folder), code)


def _links(content: EvaluationReport, decision: Decision | None, run: str) -> dict[str, str]:
    links = {"styles": index_link()}
    if decision and decision.publish and content.model:
        links["trail"] = version_link(content.style, content.model)
    return links | ({"run": run_link(run)} if run else {})


def _training_data(training: Record) -> dict[str, Any]:
    """The part of a page that a training fills."""
    return {
        "training_log": training.table("training_log"),
        "recipe": Recipe.among(training.made_of).told(),
        "weights_step": int(training.json(TRAINING_RESULT)["step"]),
        "looks": training_looks(training),
    }


def copy_pairs(store: Store, catalog: Record, samples: Sequence[Sample], nearest: pa.Table) -> list[CopyPair]:
    """The samples of the specialised model with the plain prompt that come closest to a training photo of theirs.

    Closest first, by distance in limits; on the split that decides.
    """
    judged = {s.id for s in samples if (s.model_name, s.prompt_name, s.purpose) == (*AFTER, SPLIT)}
    photos = {photo.id: photo.path for photo in store.photos(catalog)}
    distances: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for row in nearest.to_pylist():
        if row["sample"] in judged and row["photo"] in photos:
            distances.setdefault((row["sample"], row["photo"]), {})[row["by"]] = (row["distance"], row["limit"])

    def closeness(pair: tuple[str, str]) -> float:
        return min(distance / max(limit, 1e-9) for distance, limit in distances[pair].values())

    closest: dict[str, tuple[str, str]] = {}
    for pair in sorted(distances, key=lambda pair: (closeness(pair), pair)):
        closest.setdefault(pair[0], pair)
    return [
        CopyPair(
            Image.open(store.samples.path(sample)), open_or_none(photos[photo]), closeness(pair) < 1, distances[pair]
        )
        for pair in list(closest.values())[:SHOWN_PAIRS]
        for sample, photo in [pair]
    ]


def _unless(said: str, note: str | None) -> str | None:
    """A note, unless the verdict says the same already."""
    return None if note == said else note


def training_looks(training: Record) -> list[tuple[int, bytes]]:
    """Step and PNG of images drawn during a training: the first, those of the weights that were kept, and the last."""
    files = {int(file.stem.partition("-")[2]): file for file in training.path(TRAINING_SAMPLES).glob("step-*.png")}
    kept = int(training.json(TRAINING_RESULT)["step"])
    shown = sorted({min(files), max(files), kept} & files.keys()) if files else []
    return [(step, files[step].read_bytes()) for step in shown]


def comparison_rows(store: Store, catalog: Record, samples: Any) -> list[ComparisonRow]:
    """Held-out photos with what each model and prompt drew for them with one seed, in a fixed order."""
    photos = {photo.id: photo for photo in store.photos(catalog)}
    drawn: dict[str, dict[Condition, str]] = {}
    for sample in samples:
        if sample.purpose == Split.DEV:
            drawn.setdefault(sample.reference, {})[Condition(sample.model_name, sample.prompt_name)] = sample.id
    return [
        ComparisonRow(
            open_or_none(photos[reference].path),
            {condition: Image.open(store.samples.path(sample)) for condition, sample in shown.items()},
            caption=", ".join(photos[reference].attributes.values()),
        )
        for reference, shown in list(drawn.items())[:SHOWN_PRODUCTS]
        if reference in photos
    ]


def comparison_picture(store: Store, evaluation: Record) -> bytes | None:
    """The before/after grid of an evaluation as one JPEG; None where nothing was compared."""
    samples = Sample.read(evaluation.table("evaluation_samples"))
    rows = comparison_rows(store, store.records.input(evaluation, "catalog"), samples)
    shown = [condition for condition in CONDITIONS if rows and all(condition in row.images for row in rows)]
    if not shown:
        return None
    grid = [[row.reference, *(row.images[condition] for condition in shown)] for row in rows]
    return pictures.jpeg_bytes(pictures.comparison_grid(grid, ["photo", *(" ".join(c) for c in shown)]))


def open_or_none(location: str) -> Image.Image | None:
    """A photo, or None if it cannot be read any more."""
    try:
        return open_photo(location, max_side=256)
    except PhotoError:
        return None


def newest_report(store: Store, style: str) -> Record | None:
    """The record whose report a person wants to see: of the newest prompt report and evaluation the later one."""
    kinds = sorted(("prompt_report", "evaluation"), key=lambda kind: store.records.pointed_at(kind, style))
    return store.records.newest(kinds[-1], style)


def _search_data(store: Store, models: Models, searched: Record) -> dict[str, Any]:
    """The part of a page that a search fills."""
    leaderboard = searched.table("leaderboard")
    best = leaderboard.slice(0, 1).to_pylist()[0]
    candidates = store.records.input(searched, "candidates")
    explored = searched.table("explored")
    shown = explored["prompt"].to_pylist()[:SHOWN_EXPLORED]
    return {
        "among_photos": _among_photos(store, searched),
        "explored": explored,
        "look_thumbnails": look_thumbnails(store, models.profile, searched, shown),
        "note": unseen(sight_of(store.records.input(candidates, "features"))),
        "plain_prompt": next(
            (row["prompt"] for row in candidates.table("candidates").to_pylist() if row["strategy"] == "plain"), None
        ),
        "optimized_prompt": best["prompt"],
        "negative_prompt": best["negative_prompt"],
        "guidance": best["guidance"],
        "strategy": best["strategy"],
        "leaderboard": leaderboard,
        **{name: searched.table(name) for name in ("formats", "phrases", "progress")},
        "thumbnails": _thumbnails(store, searched, leaderboard["candidate"].to_pylist()),
    }


def _among_photos(store: Store, searched: Record) -> float | None:
    """Mean encoder cosine of the search photos of different products; None with one product, or without embeddings."""
    catalog, encoder = store.records.input(searched, "catalog"), str(searched.made_of.get("encoder"))
    photos = [photo for photo in store.photos(catalog) if photo.split == Split.SEARCH]
    index = store.features.index(catalog.style, Role.ENCODER, encoder)
    there = [photo for photo in photos if not index.missing([photo.id])]
    if not there:
        return None
    return within_similarity(index.rows([each.id for each in there]), [each.product_group for each in there])


def _thumbnails(store: Store, searched: Record, candidates: Sequence[str]) -> dict[str, list[Image.Image]]:
    """Candidate → its images of the first photos that were drawn for all."""
    thumbnails: dict[str, list[Image.Image]] = {candidate: [] for candidate in candidates}
    for sample in Sample.read(searched.table("samples")):
        shown = thumbnails.get(sample.candidate)
        if shown is not None and sample.purpose == Split.SEARCH and len(shown) < THUMBNAILS:
            shown.append(Image.open(store.samples.path(sample.id)))
    return thumbnails


def _lineage(models: Models, inputs: Mapping[str, Record], run: str) -> Lineage:
    catalog, training = inputs["catalog"], inputs.get("training")
    return Lineage(
        photos=Counter(catalog.table("images")["split"].to_pylist()),
        rejects=catalog.table("rejects").num_rows,
        models={role: models.fingerprint(role) for role in ("generator", "encoder", "judge")},
        run_id=run or None,
        training_run=training.run if training and training.run != run else None,
        code_version=version("fashion-pipeline"),
        records={kind: record.key for kind, record in inputs.items()},
        created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def _write(path: Path, data: ReportData) -> None:
    path.write_text(render_html(data), encoding="utf-8")
