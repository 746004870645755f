"""Stage 9: a version that anyone can load, only if it is better than the original and than the one in use."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion_pipeline.core.texts import text
from fashion_pipeline.stages.models import KOHYA_WEIGHTS, WEIGHTS, Models
from fashion_pipeline.stages.reports import PAGE, REPORT
from fashion_pipeline.stages.training import MODEL
from fashion_pipeline.store.records import Content
from fashion_pipeline.store.store import Store


@dataclass(frozen=True)
class Published:
    """What became of an evaluated model."""

    folder: Path | None
    """Of the version; None where nothing was published."""
    version: str
    reason: str
    verdict: str


def publish(store: Store, models: Models, style: str) -> Published:
    """Publish the model that the newest evaluation compared, if the evaluation says so."""
    evaluation = store.records.latest("evaluation", style)
    report = evaluation.json(REPORT)
    version = str(report["model"])
    refusal = _refusal(store, style, report)
    if refusal:
        return Published(None, version, refusal, str(report["verdict"]))
    training = store.records.input(evaluation, "training")
    extras: dict[str, Content] = {
        "README.md": card(
            report,
            base_name(models.profile.generator),
            guidance=models.profile.generation.guidance,
            lora=training.path(KOHYA_WEIGHTS).exists(),
        ),
        "evaluation_report.json": report,
        PAGE: evaluation.path(PAGE),
        **{name: training.path(name) for name in (WEIGHTS, KOHYA_WEIGHTS) if training.path(name).exists()},
    }
    model = store.records.input(evaluation, "model").path(MODEL)
    folder = store.versions.publish(style, version, model, extras, store.records.ancestry(evaluation))
    return Published(folder, version, text("publishing.published", version=version), str(report["verdict"]))


def _refusal(store: Store, style: str, report: dict[str, Any]) -> str | None:
    """Why an evaluated model is not published; None if it is."""
    champion = store.versions.champion(style)
    if report["verdict"] != "better":
        return text("publishing.not_better", verdict=report["verdict"], reason=report["reason"])
    if champion is None or champion.name == report["model"]:
        return None
    against = report["against_champion"] if report["champion"] == champion.name else None
    if against is None:
        against = {"verdict": "no evidence", "reason": "the evaluation did not compare it with this version"}
    if against["verdict"] == "better":
        return None
    said = {"version": champion.name, "name": against["verdict"], "reason": against["reason"]}
    return text("publishing.not_above_champion", **said)


def leaderboard_row(store: Store, style: str) -> dict[str, Any]:
    """One style's figures on dev, by the encoder; empty if it was never evaluated."""
    evaluation = store.records.newest("evaluation", style)
    if evaluation is None:
        return {}
    report = evaluation.json(REPORT)
    means = {
        (s["model"], s["prompt"]): s["mean"]
        for s in report["scores"]
        if (s["measure"], s["split"]) == ("encoder", "dev")
    }
    return {
        "style": style,
        **{f"{model}, {prompt} prompt": round(mean, 4) for (model, prompt), mean in means.items()},
        "verdict": report["verdict"],
        "published": "yes" if store.versions.champion(style) else "no",
    }


def base_name(source: str) -> str:
    """What people call the base: its hub id, or the folder's name, with its parent's where that says more."""
    path = Path(source)
    return f"{path.parent.name}/{path.name}" if path.is_absolute() else source


def card(report: dict[str, Any], base: str, *, guidance: float, lora: bool = True) -> str:
    """The model card; it recommends the prompt that came closer with this model, drawn as it was in the evaluation.

    `guidance` is the scale that the profile draws the plain prompt with.
    """
    rows = "\n".join(
        f"| {s['model']} | {s['prompt']} | {s['measure']} | {s['split']} | {s['mean']:.4f} | {_span(s)} | {s['n']} |"
        for s in report["scores"]
    )
    prompts = {"plain": report["plain_prompt"], "best": report["optimized_prompt"]}
    return text(
        "card.whole",
        style=report["style"],
        base=base,
        call=_call(report, _recommended(report), guidance),
        profile=report["profile"],
        verdict=report["verdict"],
        reason=report["reason"],
        rows=rows,
        lora=text("card.lora") if lora else text("card.no_lora"),
        prompts="\n".join(f"| {name} | {prompt} |" for name, prompt in prompts.items()),
    )


def _call(report: dict[str, Any], name: str, guidance: float) -> str:
    """The arguments of a pipeline that draws the plain or the best prompt as the evaluation did."""
    if name == "plain":
        return f"{json.dumps(report['plain_prompt'])}, guidance_scale={guidance}"
    negative = f", negative_prompt={json.dumps(report['negative_prompt'])}" if report["negative_prompt"] else ""
    return f"{json.dumps(report['optimized_prompt'])}{negative}, guidance_scale={report['guidance_scale']}"


def _recommended(report: dict[str, Any]) -> str:
    """plain or best: which scored higher with the specialised model, by the encoder on dev."""
    means = {
        s["prompt"]: s["mean"]
        for s in report["scores"]
        if (s["model"], s["measure"], s["split"]) == ("specialised", "encoder", "dev")
    }
    return max(means, key=lambda name: (means[name], name == "plain"), default="plain")


def _span(score: dict[str, Any]) -> str:
    if score["low"] is None:
        return text("card.no_interval")
    return text("card.span", low=f"{score['low']:.4f}", high=f"{score['high']:.4f}")
