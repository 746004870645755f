"""Stage 9: a version that anyone can load, only if it is better than the original and than the one in use."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fashion_pipeline.core.evaluation.report import EvaluationReport
from fashion_pipeline.core.evaluation.verdicts import SPLIT
from fashion_pipeline.core.names import (
    EVALUATION_REPORT,
    KOHYA_LORA_WEIGHTS,
    LORA_WEIGHTS,
    PIPELINE,
    REPORT_PAGE,
)
from fashion_pipeline.core.rows import Model, Role, Sample
from fashion_pipeline.core.texts import text
from fashion_pipeline.stages.drawing.base import licence, require_base
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.publishing.cards import base_name, card, parts_without
from fashion_pipeline.stages.publishing.tracing import trail_of, trained_pairs
from fashion_pipeline.stages.training.training import trained_ids
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import Content, Record
from fashion_pipeline.store.store import Store
from fashion_pipeline.store.versions import WAITS

Approval = Literal["none", "required"]


GALLERY = 4
"""Samples beside the card of a version."""


@dataclass(frozen=True)
class Published:
    """What became of an evaluated model."""

    folder: Path | None
    """Of the version in use; None where nothing was published."""
    version: str
    reason: str
    headline: str
    """What the evaluation decided, in one sentence."""
    waits: bool = False
    """Whether the version is complete, and in use as soon as somebody approves it."""


def publish(store: Store, models: Models, style: str, approval: Approval = "none") -> Published:
    """Publish the model that the newest evaluation compared, if the evaluation says so.

    With approval required, here or by what was chosen for the style, the version waits, complete, until `approve` is
    called. A model that was trained on a photo which was withdrawn since is not published.
    """
    evaluation = store.records.latest("evaluation", style)
    report = evaluation.report()
    version, headline = str(report.model), _headline(report)
    if refusal := _refusal(store, style, evaluation, report):
        return Published(None, version, refusal, headline)
    folder = _assembled(store, models, style, evaluation, report)
    chosen = store.sources.approval(style)
    if "required" in (approval, chosen) and store.versions.pointer(style).version != version:
        store.versions.hold(style, version)
        return Published(None, version, text("publishing.waits", version=version, style=style), headline, waits=True)
    store.versions.promote(style, version)
    return Published(folder, version, text("publishing.published", version=version), headline)


def approve(store: Store, style: str) -> Published:
    """Publish the version that waits.

    Raises StorageError where none does, where another one was published since it was compared, or where a photo that it
    was trained on was withdrawn since.
    """
    pointer = store.versions.pointer(style)
    if pointer.waiting is None:
        raise StorageError(f"no version of {style!r} waits for approval")
    folder = store.versions.folder(style, pointer.waiting)
    report = store.versions.report(style, pointer.waiting)
    if pointer.version is not None and report.champion != pointer.version:
        raise StorageError(
            f"version {pointer.waiting} of {style!r} was compared with {report.champion or 'no other'}, but "
            f"{pointer.version} is in use now: materialise evaluation_report of {style!r} again"
        )
    if withdrawn := withdrawn_behind(store, style, pointer.waiting):
        raise StorageError(text("publishing.withdrawn", version=pointer.waiting, photos=withdrawn, style=style))
    store.versions.promote(style, pointer.waiting)
    reason = text("publishing.published", version=pointer.waiting)
    return Published(folder, pointer.waiting, reason, _headline(report))


def _headline(report: EvaluationReport) -> str:
    decision = report.told()
    return decision.headline if decision else ""


def withdrawn_behind(store: Store, style: str, version: str) -> int:
    """How many of the photos that a version was trained on have been withdrawn."""
    return len({pair.id for pair in trained_pairs(trail_of(store, style, version))} & store.withdrawals.ids())


def _assembled(store: Store, models: Models, style: str, evaluation: Record, report: EvaluationReport) -> Path:
    training = store.records.input(evaluation, "training")
    require_base(models, training.made_of, f"version {report.model} of {style!r}")  # which the card names
    gallery = _gallery(store, evaluation, report)
    model = store.records.input(evaluation, "model").path(PIPELINE)
    loras = {name: training.path(name) for name in (LORA_WEIGHTS, KOHYA_LORA_WEIGHTS) if training.path(name).exists()}
    extras: dict[str, Content] = {
        **gallery,
        "README.md": card(
            report,
            base_name(models.profile.generator),
            guidance=models.profile.generation.guidance,
            licence=licence(models),
            files=loras,
            recipe=training.made_of,
            gallery=list(gallery),
            without=parts_without(model),
        ),
        EVALUATION_REPORT: report.as_json(),
        REPORT_PAGE: evaluation.path(REPORT_PAGE),
        **loras,
    }
    return store.versions.assemble(style, str(report.model), model, extras, store.records.ancestry(evaluation))


def _gallery(store: Store, evaluation: Record, report: EvaluationReport) -> dict[str, Path]:
    """File → a sample of the specialised model with the recommended prompt, of the first dev products."""
    if not evaluation.path("evaluation_samples.parquet").exists():
        return {}
    shown = (Model.SPECIALISED, report.recommended().strategy, SPLIT)
    samples = [
        sample.id
        for sample in Sample.read(evaluation.table("evaluation_samples"))
        if (sample.model_name, sample.prompt_name, sample.purpose) == shown
    ]
    return {f"sample-{number}.png": store.samples.path(id_) for number, id_ in enumerate(samples[:GALLERY], 1)}


def _refusal(store: Store, style: str, evaluation: Record, report: EvaluationReport) -> str | None:
    """Why an evaluated model is not published; None if it is."""
    decision = report.told()
    if decision is None:
        return text("publishing.never_trained", style=style)
    if not decision.publish:
        return f"{decision.headline} {decision.reason}"
    training = store.records.input(evaluation, "training")
    if withdrawn := len(trained_ids(store, training) & store.withdrawals.ids()):
        return text("publishing.withdrawn", version=report.model, photos=withdrawn, style=style)
    pointer = store.versions.pointer(style)
    if report.model in pointer.rolled_back:
        return text("publishing.rolled_back", version=report.model, style=style)
    if pointer.version not in (None, report.model, report.champion):
        return text("publishing.not_compared", version=pointer.version, style=style)
    return None


def leaderboard_row(store: Store, style: str) -> dict[str, Any]:
    """One style's figures on dev, by the encoder; empty if it was never evaluated."""
    evaluation = store.records.newest("evaluation", style)
    if evaluation is None:
        return {}
    report = evaluation.report()
    means = {
        cell.condition: cell.mean
        for cell in report.scores
        if (cell.measure, cell.split) == (Role.ENCODER, SPLIT) and cell.prompt in ("plain", "best")
    }
    pointer = store.versions.pointer(style)
    return {
        "style": style,
        **{f"{model}, {prompt} prompt": round(mean, 4) for (model, prompt), mean in means.items()},
        "verdict": report.verdict,
        "published": "yes" if pointer.version else (WAITS if pointer.waiting else "no"),
    }
