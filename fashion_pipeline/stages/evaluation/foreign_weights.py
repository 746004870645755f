"""The evaluation of a LoRA file that was trained elsewhere: the same photos, seeds, measures and rules."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fashion_pipeline.core.evaluation.report import EvaluationReport
from fashion_pipeline.core.names import REPORT, REPORT_PAGE
from fashion_pipeline.core.rows import Split
from fashion_pipeline.stages.catalog.features import features_of
from fashion_pipeline.stages.drawing.base import require_lora
from fashion_pipeline.stages.drawing.drawing import Report
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.evaluation.evaluation import Challenger, compare
from fashion_pipeline.stages.pages.reports import evaluation_page
from fashion_pipeline.store.records import write_content
from fashion_pipeline.store.storage.files import slug
from fashion_pipeline.store.storage.parquet import write_parquet
from fashion_pipeline.store.store import Store


@dataclass(frozen=True)
class Judged:
    """What became of it."""

    folder: Path
    """With `report.json`, `report.html` and the tables."""
    report: EvaluationReport


def evaluate_weights(
    store: Store, models: Models, style: str, weights: Path, *, products: int, report: Report
) -> Judged:
    """Compare a LoRA file with the original, and with the published version, on a style that was described.

    Nobody knows what it was trained on, so all of the style's search photos count as training photos. It is never
    published: no trail leads to its photos. Raises ModelError for a file that does not fit, MissingRecordError for a
    style that was not described, LockedError.
    """
    from fashion_pipeline.ml.files import file_hash

    require_lora(models, weights)
    with store.locks.working_on(style, "a command that evaluates weights"):
        features = features_of(store, models, style)
        catalog = store.records.input(features, "catalog")
        searched = store.records.newest("search", style)
        seen = [photo for photo in store.photos(catalog) if photo.split == Split.SEARCH]
        key = file_hash(weights)[:16]
        trained = (seen, len(seen), models.profile.training)
        challenger = Challenger(key, catalog, features, searched, *trained, lora=weights)
        comparison = compare(store, models, challenger, products, report)
        content = comparison.report.model_copy(update={"weights": weights.name, "decision": None})
        inputs = {"catalog": catalog, "features": features} | ({"search": searched} if searched else {})

        def fill(folder: Path) -> None:
            folder.mkdir()
            for name, table in comparison.tables.items():
                write_parquet(name, table, folder / f"{name}.parquet")
            write_content(content.as_json(), folder / REPORT)
            page = folder / REPORT_PAGE
            evaluation_page(store, models, page, inputs, comparison.tables, content, comparison.verdict, None, "")

        place = store.files.inside("weights", slug(style), key, content_key(content))
        done = store.files.here(place / REPORT).exists()
        return Judged(store.files.here(place) if done else store.files.place(place, fill), content)


def content_key(content: EvaluationReport) -> str:
    """A short hash of a report."""
    return hashlib.sha256(content.model_dump_json().encode()).hexdigest()[:8]
