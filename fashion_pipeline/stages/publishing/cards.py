"""The model card of a version, in the format of the Hugging Face hub: front matter, then text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fashion_pipeline.core.texts import text
from fashion_pipeline.core.training.recipe import Recipe

NO_LICENCE = "other"
"""What the hub wants where a licence has no name there, or the base tells none."""


def base_name(source: str) -> str:
    """What people call the base: its hub id, or the folder's name, with its parent's where that says more."""
    path = Path(source)
    return f"{path.parent.name}/{path.name}" if path.is_absolute() else source


def card(
    report: dict[str, Any],
    base: str,
    *,
    guidance: float,
    licence: str | None = None,
    lora: bool = True,
    recipe: Mapping[str, Any] | None = None,
) -> str:
    """The card; it recommends the prompt that came closer with this model, drawn as it was in the evaluation.

    `guidance` is the scale that the profile draws the plain prompt with, `licence` the base's, `recipe` what else the
    training was made of.
    """
    rows = "\n".join(
        f"| {s['model']} | {s['prompt']} | {s['measure']} | {s['split']} | {s['mean']:.4f} | {_span(s)} | {s['n']} |"
        for s in report["scores"]
        if s["measure"] in ("encoder", "judge")
    )
    prompts = {"plain": report["plain_prompt"], "best": report["optimized_prompt"]}
    knobs = Recipe.among(recipe).told() if recipe else {}
    return _front_matter(report, base, licence) + text(
        "card.whole",
        style=_inline(report["style"]),
        base=_inline(base),
        call=_call(report, _recommended(report), guidance),
        profile=_inline(report["profile"]),
        photos=report.get("trained_photos", text("card.unknown")),
        verdict=report["verdict"],
        reason=report["reason"],
        licence=licence or text("card.no_licence"),
        rows=rows,
        lora=text("card.lora") if lora else text("card.no_lora"),
        prompts="\n".join(f"| {name} | {_inline(prompt)} |" for name, prompt in prompts.items()),
        recipe="\n".join(f"| {name.replace('_', ' ')} | {_inline(value)} |" for name, value in knobs.items()),
    )


def _front_matter(report: dict[str, Any], base: str, licence: str | None) -> str:
    from huggingface_hub import ModelCardData

    told: dict[str, Any] = {
        "language": "en",
        "license": licence or NO_LICENCE,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["stable-diffusion", "fashion", "fashion-pipeline", str(report["style"])],
    }
    if base.count("/") == 1 and not base.startswith("embedded/"):
        told |= {"base_model": base, "base_model_relation": "finetune"}
    return f"---\n{ModelCardData(**told).to_yaml()}\n---\n\n"


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
        if (s["model"], s["measure"], s["split"]) == ("specialised", "encoder", "dev") and s["prompt"] != "others"
    }
    return max(means, key=lambda name: (means[name], name == "plain"), default="plain")


def _span(score: dict[str, Any]) -> str:
    if score["low"] is None:
        return text("card.no_interval")
    return text("card.span", low=f"{score['low']:.4f}", high=f"{score['high']:.4f}")


def _inline(value: object) -> str:
    """Text that cannot end a row of a table or become a tag."""
    shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return shown.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
