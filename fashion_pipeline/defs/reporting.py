"""The HTML page of a style, put together from everything that exists by now."""

import hashlib
from collections import Counter
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from fashion_pipeline.core import pictures
from fashion_pipeline.core.report import CONDITIONS, ComparisonRow, Lineage, ReportData, render_html
from fashion_pipeline.core.scores import score_rows
from fashion_pipeline.core.statistics import Condition
from fashion_pipeline.core.tables import rows_to_table
from fashion_pipeline.core.verdicts import Verdict
from fashion_pipeline.defs.metadata import open_or_none
from fashion_pipeline.resources.models import Models
from fashion_pipeline.resources.storage import Storage

PAGE = "report.html"
SHOWN_PRODUCTS = 8
THUMBNAILS = 4


def write_page(storage: Storage, models: Models, style: str, *, run_id: str, verdict: Verdict | None = None) -> Path:
    """Write the style's page from what is stored; without a verdict it shows the prompt optimisation alone."""
    leaderboard = storage.read("leaderboard", style)
    best = leaderboard.slice(0, 1).to_pylist()
    evaluated = verdict is not None
    data = ReportData(
        style=style,
        profile=models.read().name,
        verdict=verdict,
        plain_prompt=next(
            (r["prompt"] for r in storage.read("candidates", style).to_pylist() if r["strategy"] == "plain"), None
        ),
        optimized_prompt=best[0]["prompt"] if best else None,
        negative_prompt=best[0]["negative_prompt"] if best else None,
        strategy=best[0]["strategy"] if best else None,
        scores=storage.read("scores", style) if evaluated else _prompt_scores(storage, style),
        rows=comparison_rows(storage, style, "evaluation_samples" if evaluated else "samples"),
        leaderboard=leaderboard if best else None,
        thumbnails=_thumbnails(storage, style),
        training_log=storage.read("training_log", style) if evaluated else None,
        recipe=storage.read_report(style, "training.json")["recipe"] if evaluated else {},
        lineage=_lineage(storage, models, style, run_id),
    )
    return storage.write_report(style, PAGE, render_html(data))


def comparison_rows(storage: Storage, style: str, table: str) -> list[ComparisonRow]:
    """Held-out photos with what each model and prompt drew for them with one seed, in a fixed order."""
    images = {row["id"]: row for row in storage.read("images", style).to_pylist()}
    drawn: dict[str, dict[Condition, str]] = {}
    for row in storage.read(table, style).to_pylist():
        if row["purpose"] == "dev":
            drawn.setdefault(row["reference"], {})[Condition(row["model_name"], row["prompt_name"])] = row["id"]
    return [
        ComparisonRow(
            open_or_none(images[reference]["path"]),
            {condition: Image.open(storage.sample_path(sample)) for condition, sample in samples.items()},
            caption=", ".join(value for _, value in images[reference]["attributes"] or []),
        )
        for reference, samples in list(drawn.items())[:SHOWN_PRODUCTS]
        if reference in images
    ]


def comparison_picture(storage: Storage, style: str) -> bytes:
    """The before/after grid as one JPEG."""
    rows = comparison_rows(storage, style, "evaluation_samples")
    shown = [condition for condition in CONDITIONS if all(condition in row.images for row in rows)]
    grid = [[row.reference, *(row.images[condition] for condition in shown)] for row in rows]
    return pictures.jpeg_bytes(pictures.comparison_grid(grid, ["photo", *(" ".join(c) for c in shown)]))


def _prompt_scores(storage: Storage, style: str) -> pa.Table:
    samples, similarities = storage.read("samples", style), storage.read("similarities", style)
    return rows_to_table("scores", score_rows(samples.to_pylist(), similarities.to_pylist()))


def _thumbnails(storage: Storage, style: str) -> dict[str, list[Image.Image]]:
    """Candidate → its images of the first photos that were drawn for all."""
    found: dict[str, list[Image.Image]] = {}
    for row in storage.read("samples", style).to_pylist():
        shown = found.setdefault(row["candidate"], [])
        if row["purpose"] == "search" and len(shown) < THUMBNAILS:
            shown.append(Image.open(storage.sample_path(row["id"])))
    return found


def _lineage(storage: Storage, models: Models, style: str, run_id: str) -> Lineage:
    images = storage.read("images", style)
    used: dict[str, Any] = {
        "generator": models.base_fingerprint(),
        **{row["role"]: row["model"] for row in storage.read("features", style).select(["role", "model"]).to_pylist()},
    }
    return Lineage(
        photos=Counter(images["split"].to_pylist()),
        rejects=storage.read("rejects", style).num_rows,
        models=used,
        run_id=run_id,
        code_version=version("fashion-pipeline"),
        data_hash=hashlib.sha256("\n".join(sorted(images["id"].to_pylist())).encode()).hexdigest()[:16],
        created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
