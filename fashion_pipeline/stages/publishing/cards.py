"""The model card of a version, in the format of the Hugging Face hub: front matter, then text."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from fashion_pipeline.core.evaluation.report import Cell, EvaluationReport
from fashion_pipeline.core.names import KOHYA_LORA_WEIGHTS, LORA_WEIGHTS
from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.rows import Role
from fashion_pipeline.core.texts import text
from fashion_pipeline.core.training.recipe import Recipe

NO_LICENCE = "other"
"""What the hub wants where a licence has no name there, or the base tells none."""


def base_name(source: str) -> str:
    """What people call the base: its hub id, or the folder's name, with its parent's where that says more."""
    path = Path(source)
    return f"{path.parent.name}/{path.name}" if path.is_absolute() else source


def card(
    report: EvaluationReport,
    base: str,
    *,
    guidance: float,
    licence: str | None = None,
    files: Collection[str] = (LORA_WEIGHTS, KOHYA_LORA_WEIGHTS),
    recipe: Mapping[str, Any] | None = None,
    gallery: Sequence[str] = (),
    without: Sequence[str] = (),
) -> str:
    """The card; it recommends the prompt that came closer with this model, drawn as it was in the evaluation.

    `guidance` is the scale that the profile draws the plain prompt with, `licence` the base's, `files` those that hold
    what was trained alone, `recipe` what else the training was made of, `gallery` the files of some samples beside it,
    `without` what the pipeline does without.
    """
    rows = "\n".join(
        f"| {c.model} | {c.prompt} | {c.measure} | {c.split} | {c.mean:.4f} | {_span(c)} | {c.n} |"
        for c in report.scores
        if c.measure in list(Role)
    )
    prompts = {"plain": report.plain_prompt, "best": report.optimized_prompt}
    decision = report.told()
    knobs = Recipe.among(recipe).told() if recipe else {}
    return _front_matter(report, base, licence) + text(
        "card.whole",
        style=_inline(report.style),
        base=_inline(base),
        loading=loading("<this folder>", without),
        call=call_of(report.recommended(), guidance),
        profile=_inline(report.profile),
        trained=_trained_on(report),
        gallery="\n".join(f"![sample]({name})" for name in gallery),
        beside=text("card.beside"),
        headline=decision.headline if decision else "",
        reason=decision.reason if decision else "",
        licence=licence or text("card.no_licence"),
        rows=rows,
        lora=text(_said_of(files)),
        prompts="\n".join(f"| {name} | {_inline(prompt)} |" for name, prompt in prompts.items()),
        recipe="\n".join(f"| {name.replace('_', ' ')} | {_inline(value)} |" for name, value in knobs.items()),
    )


def _front_matter(report: EvaluationReport, base: str, licence: str | None) -> str:
    from huggingface_hub import ModelCardData

    fields: dict[str, Any] = {
        "language": "en",
        "license": licence or NO_LICENCE,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["stable-diffusion", "fashion", "fashion-pipeline", report.style],
    }
    if base.count("/") == 1 and not base.startswith("embedded/"):
        fields |= {"base_model": base, "base_model_relation": "finetune"}
    return f"---\n{ModelCardData(**fields).to_yaml()}\n---\n\n"


def _trained_on(report: EvaluationReport) -> str:
    if report.trained_photos is None:
        return text("card.unknown")
    drawn = (report.trained_images or report.trained_photos) - report.trained_photos
    return text("card.trained", images=drawn + report.trained_photos, photos=report.trained_photos, drawn=drawn)


def parts_without(pipeline: Path) -> list[str]:
    """Text encoders and tokenizers that a pipeline's folder does without, such as Stable Diffusion 3's T5."""
    index = pipeline / "model_index.json"
    named = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    return [part for part, kind in named.items() if part.startswith(("text_encoder", "tokenizer")) and kind[0] is None]


def loading(folder: str, without: Sequence[str]) -> str:
    """The expression that loads a pipeline; diffusers wants to be told what it does without."""
    told = "".join(f", {part}=None" for part in without)
    return f"DiffusionPipeline.from_pretrained({json.dumps(folder, ensure_ascii=False)}{told})"


def call_of(prompt: Candidate, guidance: float) -> str:
    """The arguments of a pipeline that draws a prompt as the evaluation did."""
    negative = f", negative_prompt={json.dumps(prompt.negative_prompt)}" if prompt.negative_prompt else ""
    scale = guidance if prompt.guidance is None else prompt.guidance
    return f"prompt={json.dumps(prompt.prompt)}{negative}, guidance_scale={scale}"


def _span(cell: Cell) -> str:
    if cell.low is None or cell.high is None:
        return text("card.no_interval")
    return text("card.span", low=f"{cell.low:.4f}", high=f"{cell.high:.4f}")


def _inline(value: object) -> str:
    """Text that cannot end a row of a table or become a tag."""
    shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return shown.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _said_of(files: Collection[str]) -> str:
    """The text for the files there are: what diffusers reads, other programs do too."""
    if LORA_WEIGHTS in files:
        return "card.lora"
    return "card.kohya_lora" if KOHYA_LORA_WEIGHTS in files else "card.no_lora"
