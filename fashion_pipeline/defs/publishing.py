"""Stage 9, publishing: a version that anyone can load, only if the verdict says that it is better."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from fashion_pipeline.defs.evaluation import EVALUATION_REPORT, evaluation_report
from fashion_pipeline.defs.metadata import markdown
from fashion_pipeline.defs.reporting import PAGE
from fashion_pipeline.defs.styles import OWNERS, styles
from fashion_pipeline.defs.training import TRAINING
from fashion_pipeline.resources.models import WEIGHTS, Models
from fashion_pipeline.resources.storage import Storage

CARD = """# {style}: a Stable Diffusion pipeline that knows the style

Made from `{base}` with the prompt "{prompt}" in mind; profile `{profile}`. Load it with stock diffusers:

```python
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained("<this folder>", safety_checker=None)
pipeline("{prompt}").images[0].save("sample.png")
```

Verdict on photos it was not trained on: **{verdict}**. {reason}

| model | prompt | by | split | mean cosine | 95 % interval | products |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

The weights are a derivative of the base model, whose licence applies. `report.html` shows pictures, curve and recipe.
"""


@dg.asset(
    partitions_def=styles,
    deps=[evaluation_report],
    group_name="publishing",
    kinds={"safetensors"},
    owners=OWNERS,
    output_required=False,
)
def published_model(
    context: dg.AssetExecutionContext, storage: Storage, models: Models
) -> Iterator[dg.MaterializeResult]:
    """The version in use: a complete pipeline with card and report. Nothing is published unless it is better."""
    style = context.partition_key
    report = storage.read_report(style, EVALUATION_REPORT)
    if report["verdict"] != "better":
        context.log.info(f"nothing published, the verdict is {report['verdict']}: {report['reason']}")
        return
    training = storage.read_report(style, TRAINING)
    if training["key"] != report["model"]:
        context.log.info("nothing published: the model was trained again after its evaluation, evaluate it first")
        return
    folder = storage.publish(
        style,
        report["model"],
        storage.model_folder(style, report["model"]),
        {
            "README.md": _card(report, models.read().generator),
            "evaluation_report.json": json.dumps(report, indent=2),
            PAGE: storage.report_path(style, PAGE),
            WEIGHTS: Path(training["weights"]),
        },
    )
    yield dg.MaterializeResult(
        metadata={
            "version": report["model"],
            "folder": dg.MetadataValue.path(str(folder)),
            "verdict": f"{report['verdict']}: {report['reason']}",
        },
        data_version=dg.DataVersion(report["model"]),
    )


@dg.asset(deps=[evaluation_report], group_name="publishing", kinds={"json"}, owners=OWNERS)
def style_leaderboard(storage: Storage) -> dg.MaterializeResult:
    """All evaluated styles: what words and what training gained, and the verdict."""
    rows = [leaderboard_row(storage, style) for style in storage.registered_styles()]
    evaluated = [row for row in rows if row]
    return dg.MaterializeResult(metadata={"styles": markdown(evaluated), "evaluated": len(evaluated)})


def leaderboard_row(storage: Storage, style: str) -> dict[str, Any]:
    """One style's figures on dev, by the encoder; empty if it was never evaluated."""
    if not storage.report_path(style, EVALUATION_REPORT).exists():
        return {}
    report = storage.read_report(style, EVALUATION_REPORT)
    means = {
        (s["model"], s["prompt"]): s["mean"]
        for s in report["scores"]
        if (s["encoder"], s["split"]) == ("encoder", "dev")
    }
    return {
        "style": style,
        **{f"{model}, {prompt} prompt": round(mean, 4) for (model, prompt), mean in means.items()},
        "verdict": report["verdict"],
        "published": "yes" if storage.champion(style) else "no",
    }


def _card(report: dict[str, Any], base: str) -> str:
    rows = "\n".join(
        f"| {s['model']} | {s['prompt']} | {s['encoder']} | {s['split']} | {s['mean']:.4f} | {_span(s)} | {s['n']} |"
        for s in report["scores"]
    )
    return CARD.format(
        style=report["style"],
        base=Path(base).name,
        prompt=report["optimized_prompt"].replace('"', "'"),
        profile=report["profile"],
        verdict=report["verdict"],
        reason=report["reason"],
        rows=rows,
    )


def _span(score: dict[str, Any]) -> str:
    return "none" if score["low"] is None else f"{score['low']:.4f} to {score['high']:.4f}"
