"""A million samples through similarity, leaderboard, curation and the report's figures, in bounded memory.

    python -m benchmarks.scaling.rows [--rows 1000000] [--photos 10000] [--side 512] [--runs 3]

The rows are synthetic (no image is drawn), the stages are the real ones. The peer is numpy in memory: the cosines of
the same pairs by one `einsum`, without tables, anchors or files. Told are the seconds of each stage, the peak of memory
of the process that runs them, and numpy's seconds. Plants 2 x rows x side x 4 bytes on disk.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.common import timed
from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.core.catalog.splits import split_of
from fashion_pipeline.core.evaluation.scores import product_scores
from fashion_pipeline.core.evaluation.verdicts import BEFORE, BEST_PROMPT, decide
from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.prompts.search import Standing, by_candidate
from fashion_pipeline.core.reports.figures import summary
from fashion_pipeline.core.rows import Role, rows_of
from fashion_pipeline.core.tables import rows_to_table, schema
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.search import figures_of
from fashion_pipeline.stages.prompts.similarity import compare_samples
from fashion_pipeline.stages.training.curation import curate_pairs
from fashion_pipeline.store.store import Store

STYLE = "coat"
CANDIDATES = 64
HELD_OUT_SHARE = 10
"""One row of so many was drawn for held-out photos."""

_AT_A_TIME = 50_000


@dataclass(frozen=True)
class _Named:
    """An encoder of which only the fingerprint is asked for, since everything is embedded."""

    fingerprint: str
    side: int = 224


@dataclass(frozen=True)
class Planted(Models):
    """The embedded profile, but for encoders that need not be loaded."""

    @contextmanager
    def encoder(self) -> Iterator[Any]:
        """Named `encoder`."""
        yield _Named(Role.ENCODER.value)

    @contextmanager
    def judge(self) -> Iterator[Any]:
        """Named `judge`."""
        yield _Named(Role.JUDGE.value)

    def fingerprint(self, role: str) -> str:
        """The role itself."""
        return role


def main(rows: int, photos: int, side: int, runs: int) -> None:
    """Plant, run the stages in a process of their own, and compare with numpy."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        _plant(Path(folder), rows, photos, side)
        print(f"planted {rows} rows in {time.perf_counter() - began:.0f} s", flush=True)
        subprocess.run([sys.executable, "-m", "benchmarks.scaling.rows", "--stages", folder], check=True)
    a, b = (_unit(rows, side, seed) for seed in (0, 1))
    product = statistics.median(timed(lambda: np.einsum("nd,nd->n", a, b)) for _ in range(runs))
    print(
        f"numpy, the same {rows} cosines in memory: {product:.2f} s (median of {runs}); both roles {2 * product:.2f} s"
    )


def stages(root: Path) -> None:
    """Run the stages on what was planted, and tell seconds and peak memory."""
    store, models = Store(root), Planted("embedded")
    told: list[tuple[str, float]] = []

    def run(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        made = work()
        told.append((name, time.perf_counter() - began))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name}: {told[-1][1]:.1f} s, peak {peak:.0f} MiB", flush=True)
        return made

    compared = run("similarity", lambda: compare_samples(store, models, STYLE, lambda text: None))
    searched = store.records.latest("search", STYLE)
    best = run("leaderboard", lambda: _leaderboard(searched.table("samples"), compared.table))
    curated = run("curation", lambda: curate_pairs(store, models, STYLE, keep=0.9, sample_share=0.5))
    scores = run("report", lambda: _report(searched.table("samples"), compared.table, best))
    print(f"{compared.table.num_rows} similarities, {len(curated.pairs)} pairs, {scores} scores")


def _leaderboard(samples: pa.Table, similarities: pa.Table) -> Candidate:
    cosines = similarities.filter(pc.field("role") == Role.ENCODER.value).select(["sample", "cosine"])
    searched = samples.select(["id", "candidate", "reference", "purpose"]).filter(pc.field("purpose") == "search")
    joined = searched.join(cosines, ["id"], ["sample"], join_type="inner", use_threads=False)
    drawn = zip(*(joined[name].to_pylist() for name in ("candidate", "reference", "cosine")), strict=True)
    rows = [figures_of(Standing(name, scores)) | {"name": name} for name, scores in by_candidate(drawn).items()]
    best = max(rows, key=lambda row: float(str(row["mean"])))
    return Candidate("plain", str(best["name"]), "")


def _report(samples: pa.Table, similarities: pa.Table, best: Candidate) -> int:
    scores = rows_to_table("scores", rows_of(product_scores(samples, similarities)))
    decide(scores, BEFORE, {}, after=BEST_PROMPT)
    summary(scores, style=STYLE, profile="embedded", best=best, guidance=3.0, verdict=None)
    return scores.num_rows


def _plant(root: Path, rows: int, photos: int, side: int) -> None:
    """A style with photos, a search that drew `rows` samples, and the embeddings of both by encoder and judge."""
    store = Store(root)
    store.sources.register(STYLE, STYLE, SourceSpec(str(root / "photos")))
    ids = [f"{number:016x}" for number in range(photos)]
    catalog = store.records.add("catalog", STYLE, tables={"images": _images(ids), "rejects": []})
    values = [{"id": id_, "facet": "colour", "value": "Red", "probability": 0.5} for id_ in ids]
    made_of = {role.value: role.value for role in Role}
    features = store.records.add(
        "features", STYLE, inputs={"catalog": catalog}, made_of=made_of, tables={"attributes": values}
    )
    samples = _samples(ids, rows)
    empty = {name: schema(name).empty_table() for name in ("leaderboard", "formats", "phrases", "progress")}
    inputs = {"catalog": catalog, "features": features}
    written = store.records.add("candidates", STYLE, inputs=inputs, tables={"candidates": []})
    inputs = {"catalog": catalog, "candidates": written}
    store.records.add("search", STYLE, inputs=inputs, tables={"samples": samples} | empty)
    for table, names in ((store.features, ids), (store.sample_features, samples["id"].to_pylist())):
        for role in Role:
            for start in range(0, len(names), _AT_A_TIME):
                part = names[start : start + _AT_A_TIME]
                table.add(STYLE, role, role.value, part, _unit(len(part), side, start))


def _images(ids: list[str]) -> pa.Table:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, len(ids), dtype=np.uint64)
    return rows_to_table(
        "images",
        [
            {
                "id": id_,
                "product": id_,
                "product_group": id_,
                "split": split_of(id_),
                "path": f"{STYLE}/{id_}.png",
                "width": 224,
                "height": 224,
                "bytes": 10_000,
                "perceptual_hash": int(printed),
                "thumbnail": random.bytes(768),
                "attributes": [],
                "caption": None,
            }
            for id_, printed in zip(ids, hashes, strict=True)
        ],
    )


def _samples(ids: list[str], rows: int) -> pa.Table:
    """Rows in the order of drawing: every candidate for one photo after the other, some of them for held-out photos."""
    by_split = {split: [id_ for id_ in ids if split_of(id_) == split] for split in ("search", "dev", "test")}
    held_out = np.arange(rows) % HELD_OUT_SHARE == 0
    splits = np.where(held_out, np.where(np.arange(rows) % (3 * HELD_OUT_SHARE) == 0, "test", "dev"), "search")
    references = [by_split[split][at // CANDIDATES % len(by_split[split])] for at, split in enumerate(splits.tolist())]
    candidate = np.char.add("c", (np.arange(rows) % CANDIDATES).astype(str))
    constant = {
        "model": "g",
        "model_name": "original",
        "negative_prompt": "",
        "seed": 1,
        "steps": 25,
        "guidance": 7.5,
        "width": 512,
        "height": 512,
    }
    columns = {name: pa.repeat(pa.scalar(value), rows) for name, value in constant.items()}
    columns |= {
        "id": pa.array([f"s{number:015x}" for number in range(rows)]),
        "prompt_name": pa.array(np.where(np.arange(rows) // HELD_OUT_SHARE % 2, "best", "plain")),
        "candidate": pa.array(candidate),
        "prompt": pa.array(np.char.add("a red coat ", candidate)),
        "reference": pa.array(references),
        "product_group": pa.array(references),
        "split": pa.array(splits),
        "purpose": pa.array(splits),
    }
    return pa.table({name: columns[name] for name in schema("samples").names}).cast(schema("samples"))


def _unit(rows: int, side: int, seed: int) -> NDArray[np.float32]:
    """Unit rows around one direction, so that cosines are as of one style."""
    found = np.random.default_rng(seed).normal(0, 0.5, (rows, side)).astype(np.float32)
    found[:, 0] += np.sqrt(side) / 2
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--stages", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stages:
        stages(given.stages)
    else:
        main(given.rows, given.photos, given.side, given.runs)
