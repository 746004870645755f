"""Pages that are made on demand from what is recorded: a style's in another language, and the one of all styles."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from fashion_pipeline.core.evaluation.decisions import Decision, decide_publishing, decision_of_before
from fashion_pipeline.core.evaluation.report import EvaluationReport
from fashion_pipeline.core.evaluation.statistics import Condition, Interval
from fashion_pipeline.core.evaluation.verdicts import AFTER, BEFORE, BEST_PROMPT, CHAMPION, SPLIT, Verdict, decide
from fashion_pipeline.core.names import REPORT_PAGE
from fashion_pipeline.core.reports.index import StyleEntry, render_index
from fashion_pipeline.core.rows import Role, Sample
from fashion_pipeline.core.texts import ENGLISH, language
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.pages.reports import comparison_rows, evaluation_page, newest_report, prompt_page
from fashion_pipeline.stages.publishing.tracing import stale
from fashion_pipeline.stages.standing.outcome import evaluation_of
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import KINDS, Record
from fashion_pipeline.store.store import Store

SHOWN = 6
"""Products of a style's strip."""

INDEX = "index.html"


def page_of(store: Store, models: Models, record: Record) -> Path:
    """The page of a prompt report or evaluation in the language that is spoken now; the recorded one in English.

    Raises StorageError for a record that is damaged, or that an earlier version of the program made.
    """
    if language() == ENGLISH:
        return record.path(REPORT_PAGE)
    tables = {name: record.table(name) for name in KINDS[record.kind].tables}
    content = record.report()
    inputs = {kind: store.records.input(record, kind) for kind in record.inputs}
    sight = content.garments_seen

    def write(path: Path) -> None:
        if record.kind == "evaluation":
            verdict = decide(tables["scores"], sight=sight)
            decision = decision_in_words(record, content, verdict)
            evaluation_page(store, models, path, inputs, tables, content, verdict, decision, record.run)
        else:
            scores = tables["prompt_scores"]
            verdict = decide(scores, BEFORE, sight, after=BEST_PROMPT)
            prompt_page(store, models, path, inputs, scores, verdict, sight, record.run)

    place = store.files.inside("pages", record.style, f"{record.kind}-{record.key}.{language()}.html")
    return store.files.place(place, write)


def index_page(store: Store, models: Models) -> Path:
    """Write the page of all styles, in the language that is spoken now, and return where it lies."""
    pages = store.files.inside("pages")

    def address(record: Record) -> str:
        try:
            page = page_of(store, models, record)
        except StorageError:
            page = record.path(REPORT_PAGE)  # in English rather than not at all
        return Path(os.path.relpath(page, pages)).as_posix()

    text = index_text(store, models, address)
    name = INDEX if language() == ENGLISH else f"index.{language()}.html"
    return store.files.place(pages / name, lambda path: path.write_text(text, encoding="utf-8"))


def index_text(store: Store, models: Models, address: Callable[[Record], str]) -> str:
    """The page of all styles as HTML; `address` says where the page of a report or evaluation is found from there."""
    old: dict[str, int] = {}
    for use in stale(store):
        old[use.style] = max(old.get(use.style, 0), use.photos)
    entries = [_entry(store, style, old.get(style, 0), address) for style in store.sources.styles()]
    created = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return render_index(entries, profile=models.profile.name, created=created)


def _entry(store: Store, style: str, stale_photos: int, address: Callable[[Record], str]) -> StyleEntry:
    """What there is of a style; one whose records are damaged has its name only."""
    try:
        pointer = store.versions.pointer(style)
        catalog = store.records.newest("catalog", style)
        photos = catalog.table("images").num_rows if catalog else 0
        fields: dict[str, Any] = {"published": pointer.version, "waiting": pointer.waiting, "photos": photos}
        shown = newest_report(store, style)
        if shown is not None:
            fields |= _shown(store, shown, stale_photos, address)
    except StorageError as error:
        return StyleEntry(style, None, problem=str(error))
    return StyleEntry(style, **{"page": None, **fields})


def _shown(store: Store, record: Record, stale_photos: int, address: Callable[[Record], str]) -> dict[str, Any]:
    """The newest decision; gains and pictures of the version in use, or of the newest training where none is."""
    newest = store.records.newest("evaluation", record.style)
    fields = {"page": address(record), "stale": stale_photos, "gains": _gains(record.report())}
    if newest is None:
        return fields
    report = newest.report()
    verdict = decide(newest.table("scores"), sight=report.garments_seen)
    shown = evaluation_of(store, record.style, store.versions.pointer(record.style).version) or newest
    return fields | {
        "decision": decision_in_words(newest, report, verdict),
        "shown": shown.report().model,
        "gains": _gains(shown.report()),
        "strip": _strip(store, shown),
    }


def decision_in_words(evaluation: Record, report: EvaluationReport, verdict: Verdict) -> Decision | None:
    """The decision of an evaluation in the language that is spoken now; the recorded one in English."""
    recorded = report.told()
    if language() == ENGLISH or recorded is None:
        return recorded
    if report.decision is None:
        against = decide(evaluation.table("scores"), CHAMPION, report.garments_seen) if report.champion else None
        return decision_of_before(verdict.name, verdict.reason, (against.name, against.reason) if against else None)
    champion = report.champion is not None
    return decide_publishing(evaluation.table("scores"), report.garments_seen, recorded.publish_when, verdict, champion)


def _gains(content: EvaluationReport) -> list[tuple[Condition, str, Interval]]:
    """On the split that decides, over the original with the plain prompt, by encoder and judge."""
    return [
        (gain.condition, gain.measure, gain.interval)
        for gain in content.gains
        if gain.split == SPLIT and gain.against == BEFORE and gain.measure in list(Role)
    ]


def _strip(store: Store, evaluation: Record) -> list[tuple[Image.Image | None, Image.Image | None, Image.Image | None]]:
    samples = Sample.read(evaluation.table("evaluation_samples"))
    rows = comparison_rows(store, store.records.input(evaluation, "catalog"), samples)
    return [(row.reference, row.images.get(BEFORE), row.images.get(AFTER)) for row in rows[:SHOWN]]
