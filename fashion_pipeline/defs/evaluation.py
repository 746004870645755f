"""Stage 8, evaluation: original against specialised model, by photos and seeds that nothing was chosen on."""

from typing import Any

import dagster as dg
from pydantic import Field

from fashion_pipeline.core.pictures import interval_chart
from fashion_pipeline.core.prompts import Candidate, write
from fashion_pipeline.core.report import summary
from fashion_pipeline.core.samples import photos_of, plan
from fashion_pipeline.core.scores import score_rows
from fashion_pipeline.core.statistics import Interval
from fashion_pipeline.core.verdicts import MIN_PRODUCTS, decide
from fashion_pipeline.defs.metadata import check, checks, column_schema, markdown, picture, row_count
from fashion_pipeline.defs.reporting import comparison_picture, write_page
from fashion_pipeline.defs.similarity import measure
from fashion_pipeline.defs.studio import Studio
from fashion_pipeline.defs.styles import OWNERS, styles
from fashion_pipeline.defs.training import TRAINING, specialised_model
from fashion_pipeline.resources.gpu import POOL
from fashion_pipeline.resources.models import Models
from fashion_pipeline.resources.storage import Storage

EVALUATION_REPORT = "evaluation_report.json"


class EvaluationConfig(dg.Config):
    """How much the comparison may cost."""

    products: int = Field(
        default=128, ge=1, description="Most products of dev, and of test, on which the models are compared."
    )


@dg.asset(
    partitions_def=styles,
    deps=[specialised_model],
    group_name="evaluation",
    kinds={"pytorch", "json"},
    owners=OWNERS,
    pool=POOL,
    metadata=column_schema("scores", "evaluation_samples"),
    check_specs=checks(
        "evaluation_report",
        blocking={"every_condition_scored": "Both models were scored with both prompts by encoder and judge."},
        warning={"enough_products": "There are enough dev products for a verdict."},
    ),
)
def evaluation_report(
    context: dg.AssetExecutionContext, config: EvaluationConfig, storage: Storage, models: Models
) -> dg.MaterializeResult:
    """The original against the specialised model, each with the plain and the best prompt, and the verdict."""
    style = context.partition_key
    prompts, strategy = _prompts(storage, models, style)
    images = storage.read("images", style)
    shots = [
        shot for split in ("dev", "test") for shot in plan(prompts, photos_of(images, split, config.products), split)
    ]
    rows, drawn = [], 0
    for name, folder in (
        ("original", None),
        ("specialised", storage.model_folder(style, _training_key(storage, style))),
    ):
        with models.generator(folder) as generator:
            studio = Studio(storage, generator, name, models.read().generation, context.log.info)
            rows += studio.shoot(shots)
            drawn += studio.drawn
    samples = storage.write("evaluation_samples", style, rows)
    scores = storage.write("scores", style, score_rows(rows, measure(context, storage, models, style, samples)))
    verdict = decide(scores)
    report = summary(
        scores,
        style=style,
        profile=models.read().name,
        optimized_prompt=prompts[-1][1].prompt,
        strategy=strategy,
        verdict=verdict,
    )
    storage.write_report(style, EVALUATION_REPORT, report | {"model": _training_key(storage, style)})
    page = write_page(storage, models, style, run_id=context.run.run_id, verdict=verdict)
    conditions = len({(row["model"], row["prompt"], row["encoder"]) for row in scores.to_pylist()})
    products = len(photos_of(images, "dev", config.products))
    return dg.MaterializeResult(
        metadata={
            **row_count(scores),
            "verdict": f"{verdict.name}: {verdict.reason}",
            "before and after": picture(comparison_picture(storage, style), "the same prompt and seed, side by side"),
            "similarity on dev": picture(_chart(report["scores"]), "similarity by model and prompt"),
            "scores": markdown(report["scores"]),
            "gains": markdown([{**gain, "against": " ".join(gain["against"].values())} for gain in report["gains"]]),
            "images drawn": drawn,
            "report": dg.MetadataValue.path(str(page)),
            **{
                f"{g['encoder']} gain of {g['model']} {g['prompt']}": g["mean"]
                for g in report["gains"]
                if g["split"] == "dev" and g["against"] == {"model": "original", "prompt": "plain"}
            },
        },
        check_results=[
            check("every_condition_scored", conditions == 8, blocking=True, conditions=conditions),
            check("enough_products", verdict.name != "no evidence" or products >= MIN_PRODUCTS, dev_products=products),
        ],
    )


def _chart(scores: list[dict[str, Any]]) -> bytes:
    """The encoder's similarity on dev, a dot with its interval for each model and prompt."""
    return interval_chart(
        [
            (f"{s['model']}, {s['prompt']} prompt", Interval(s["mean"], s["low"], s["high"], s["n"]))
            for s in scores
            if (s["encoder"], s["split"]) == ("encoder", "dev")
        ]
    )


def _prompts(storage: Storage, models: Models, style: str) -> tuple[list[tuple[str, Candidate]], str]:
    """The plain and the best prompt, and the strategy that wrote the latter; plain twice without a search."""
    plain = write("plain", storage.subject(style), [], models.prompt_fits())
    leaders = storage.read("leaderboard", style).slice(0, 1).to_pylist()
    if not leaders:
        return [("plain", plain), ("best", plain)], "plain"
    best = Candidate(leaders[0]["strategy"], leaders[0]["prompt"], leaders[0]["negative_prompt"])
    return [("plain", plain), ("best", best)], best.strategy


def _training_key(storage: Storage, style: str) -> str:
    return str(storage.read_report(style, TRAINING)["key"])
