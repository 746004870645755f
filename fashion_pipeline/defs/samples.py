"""Stage 4, samples: the search spends its budget of images, and the winner is drawn anew for photos it never saw."""

from collections.abc import Mapping, Sequence

import dagster as dg
import pyarrow as pa
from pydantic import Field

from fashion_pipeline.core.prompts import Candidate
from fashion_pipeline.core.samples import photos_of, plan
from fashion_pipeline.core.search import Standing, Trial, successive_halving
from fashion_pipeline.core.similarity import paired_cosines
from fashion_pipeline.core.statistics import bootstrap
from fashion_pipeline.defs.metadata import check, checks, column_schema, gallery, markdown, row_count
from fashion_pipeline.defs.prompts import prompt_candidates
from fashion_pipeline.defs.studio import Studio, embed_samples, index
from fashion_pipeline.defs.styles import OWNERS, styles
from fashion_pipeline.resources.gpu import POOL
from fashion_pipeline.resources.models import Models
from fashion_pipeline.resources.storage import Storage

PLAIN = "plain"
BEST = "best"


class SearchConfig(dg.Config):
    """What the search for the best prompt may cost."""

    budget: int = Field(default=192, ge=2, description="Images that the search may draw to find the best prompt.")
    held_out_products: int = Field(
        default=128, ge=1, description="Most products of dev, and of test, for which plain and best prompt are drawn."
    )


@dg.asset(
    partitions_def=styles,
    deps=[prompt_candidates],
    group_name="samples",
    kinds={"pytorch", "png", "parquet"},
    owners=OWNERS,
    pool=POOL,
    metadata=column_schema("samples", "leaderboard"),
    check_specs=checks(
        "generated_samples",
        blocking={"every_image_exists": "Every row has its PNG."},
        warning={"within_budget": "The search drew no more images than its budget."},
    ),
)
def generated_samples(
    context: dg.AssetExecutionContext, config: SearchConfig, storage: Storage, models: Models
) -> dg.MaterializeResult:
    """Images of the original model: for the search, and of the plain and the best prompt for held-out photos."""
    style = context.partition_key
    candidates = read_candidates(storage, style)
    images = storage.read("images", style)
    photos = {photo.id: photo for photo in photos_of(images, "search")}
    rows: list[dict[str, object]] = []
    with models.generator() as generator, models.encoder() as encoder:
        studio = Studio(storage, generator, "original", models.read().generation, context.log.info)
        references = index(storage, "features", style, "encoder", encoder.fingerprint)

        def draw(trials: Sequence[Trial]) -> Mapping[Trial, float]:
            shots = [
                shot
                for c, p in trials
                for shot in plan([(candidates[c].strategy, candidates[c])], [photos[p]], "search")
            ]
            drawn = studio.shoot(shots)
            rows.extend(drawn)
            ids = [str(row["id"]) for row in drawn]
            embed_samples(storage, style, ids, {"encoder": encoder}, context.log.info)
            embedded = index(storage, "sample_features", style, "encoder", encoder.fingerprint)
            cosines = paired_cosines(embedded.rows(ids), references.rows([p for _, p in trials]))
            return dict(zip(trials, map(float, cosines), strict=True))

        standings = successive_halving(list(candidates), list(photos), config.budget, draw)
        spent = len(rows)
        pair = [(PLAIN, _plain(candidates)), (BEST, candidates[standings[0].candidate])]
        for split in ("dev", "test"):
            rows += studio.shoot(plan(pair, photos_of(images, split, config.held_out_products), split))
    samples = storage.write("samples", style, rows)
    leaderboard = storage.write("leaderboard", style, [_standing_row(s, candidates[s.candidate]) for s in standings])
    missing = sum(not storage.sample_path(str(row["id"])).exists() for row in rows)
    return dg.MaterializeResult(
        metadata={
            **row_count(samples),
            "images drawn": studio.drawn,
            "images found": len({row["id"] for row in rows}) - studio.drawn,
            "best prompt": candidates[standings[0].candidate].prompt,
            "leaderboard": markdown(
                leaderboard.select(["strategy", "prompt", "images", "mean", "low", "high"]).to_pylist()
            ),
            "samples": _shown(storage, samples),
        },
        check_results=[
            check("every_image_exists", missing == 0, blocking=True, missing=missing),
            check("within_budget", spent <= config.budget, images=spent, budget=config.budget),
        ],
    )


def read_candidates(storage: Storage, style: str) -> dict[str, Candidate]:
    """The style's candidates by id."""
    return {
        row["id"]: Candidate(
            row["strategy"],
            row["prompt"],
            row["negative_prompt"],
            tuple(row["phrases"]),
            tuple(row["dropped"]),
            row["parent"],
        )
        for row in storage.read("candidates", style).to_pylist()
    }


def _plain(candidates: Mapping[str, Candidate]) -> Candidate:
    return next(candidate for candidate in candidates.values() if candidate.strategy == PLAIN)


def _standing_row(standing: Standing, candidate: Candidate) -> dict[str, object]:
    interval = bootstrap(list(standing.scores.values()))
    return {
        "candidate": candidate.id,
        "strategy": candidate.strategy,
        "prompt": candidate.prompt,
        "negative_prompt": candidate.negative_prompt,
        "images": len(standing.scores),
        "mean": standing.mean,
        "low": interval.low,
        "high": interval.high,
        "rung": standing.rung,
    }


def _shown(storage: Storage, samples: pa.Table) -> dg.MarkdownMetadataValue:
    """The plain and the best prompt's images of the same photos and seeds, next to each other."""
    rows = [row for row in samples.to_pylist() if row["purpose"] == "dev"]
    return gallery([str(storage.sample_path(row["id"])) for row in rows], [str(row["prompt_name"]) for row in rows])
