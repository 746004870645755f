"""How a style stands: what was decided about its newest evaluation, which version is in use, and what to do next."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fashion_pipeline.core.evaluation.decisions import Decision
from fashion_pipeline.core.evaluation.report import EvaluationReport
from fashion_pipeline.core.names import PIPELINE
from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.texts import text
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store
from fashion_pipeline.store.versions import IN_USE, ROLLED_BACK, WAITS

State = Literal["in use", "waits for approval", "rolled back", "not published", "ready to publish", "not trained"]


@dataclass(frozen=True)
class Outcome:
    """What came of a style's newest runs."""

    style: str
    decision: Decision | None
    """On the newest evaluation; None where nothing was trained."""
    headline: str
    """What was decided, in one sentence; of the prompts where nothing was trained."""
    reason: str
    evaluated: str | None
    """The version that the newest evaluation compared."""
    state: State
    """What became of that version."""
    in_use: str | None
    waiting: str | None
    folder: Path | None
    """The model to load: the version in use, else the newest one; None where none was trained."""
    prompt: Candidate
    """The prompt to draw it with."""
    next: str
    """The command that goes on from here."""


def outcome_of(store: Store, style: str, newest: Record) -> Outcome:
    """From the newest report of a style, on prompts or on a model. Raises StorageError for what is damaged."""
    report, pointer = newest.report(), store.versions.pointer(style)
    decision = report.told()
    state = _state(store, style, report, decision)
    headline, reason = _sentences(report, decision)
    in_use = pointer.version
    recommended = report
    if in_use and in_use != report.model:
        with suppress(StorageError):  # a version without a report draws with the newest prompt
            recommended = store.versions.report(style, in_use)
    return Outcome(
        style=style,
        decision=decision,
        headline=headline,
        reason=reason,
        evaluated=report.model,
        state=state,
        in_use=in_use,
        waiting=pointer.waiting,
        folder=_folder(store, style, in_use, state),
        prompt=recommended.recommended(),
        next=_next(style, state),
    )


def evaluation_of(store: Store, style: str, version: str | None) -> Record | None:
    """The newest evaluation of a version, published or not, that is still there."""
    evaluations = [each for each in store.records.all("evaluation", style) if each.report().model == version]
    return evaluations[-1] if version and evaluations else None


def _state(store: Store, style: str, report: EvaluationReport, decision: Decision | None) -> State:
    if report.model is None or decision is None:
        return "not trained"
    pointer = store.versions.pointer(style)
    states: dict[str | None, State] = {pointer.waiting: WAITS, pointer.version: IN_USE}
    states |= dict.fromkeys(pointer.rolled_back, ROLLED_BACK)
    return states.get(report.model, "ready to publish" if decision.publish else "not published")


def _sentences(report: EvaluationReport, decision: Decision | None) -> tuple[str, str]:
    if decision:
        return decision.headline, decision.reason
    if report.prompt_verdict:
        name = text(f"verdict.names.{report.prompt_verdict.verdict}")
        return text("report.prompt_verdict", verdict=name), report.prompt_verdict.reason
    return text("report.no_verdict"), text("report.no_verdict_reason")


def _folder(store: Store, style: str, in_use: str | None, state: State) -> Path | None:
    if in_use:
        return store.versions.folder(style, in_use)
    model = None if state == "not trained" else store.records.newest("model", style)
    return model.folder / PIPELINE if model else None


def _next(style: str, state: State) -> str:
    if state == "not trained":
        return f"fashion-pipeline run --style {style} --mode finetune"
    if state in ("waits for approval", "ready to publish"):
        return f"fashion-pipeline publish --style {style}"
    if state == "in use":
        return f"fashion-pipeline generate --style {style}"
    return f"fashion-pipeline report --style {style} --open"
