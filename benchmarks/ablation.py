"""What each choice of the training is worth: variants of it against the original model, on photos never trained on.

    python -m benchmarks.ablation STYLE [--source PHOTOS] [--seeds 2] [--products 60] [--steps N] [--only NAME …]

Needs a style whose prompts were searched (`fashion-pipeline run --mode prompt`). Each variant is trained with every
seed by the profile's recipe, then original and variant draw the plain prompt for the same products of `dev` and `test`
with the same seeds. Nothing was chosen on those. What is finished is not computed again; the table is printed and
written to `ablation/STYLE/results.md` in the data root after each variant.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import told, write_json
from fashion_pipeline.core.evaluation.scores import product_scores
from fashion_pipeline.core.evaluation.statistics import Condition, paired, paired_scores
from fashion_pipeline.core.prompts.formats import write
from fashion_pipeline.core.prompts.planning import photos_of, plan
from fashion_pipeline.core.rows import Model, Origin, Pair, Role, Sample, Split, rows_of
from fashion_pipeline.core.tables import rows_to_table
from fashion_pipeline.settings import read_settings
from fashion_pipeline.stages.drawing.base import prompt_fits
from fashion_pipeline.stages.drawing.drawing import Studio
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.similarity import measure
from fashion_pipeline.stages.training.curation import curate_pairs
from fashion_pipeline.stages.training.training import training_job
from fashion_pipeline.stages.training.weights import export_weights, finetune, training_identity
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.storage.files import remove
from fashion_pipeline.store.store import Store

KEEP, SAMPLE_SHARE = 0.8, 0.5
"""How the pairs are curated: as in the pipeline, but with enough samples for a variant of their own."""


@dataclass(frozen=True)
class Variant:
    """A way to train."""

    name: str
    pairs: Callable[[Pair], bool]
    knobs: dict[str, Any] = field(default_factory=dict)


def _curated(pair: Pair) -> bool:
    return pair.kept


VARIANTS = (
    Variant("curated photos and samples, LoRA on attention", _curated),
    Variant("curated photos only", lambda pair: pair.kept and pair.origin == Origin.REFERENCE),
    Variant("samples only", lambda pair: pair.kept and pair.origin == Origin.SAMPLE),
    Variant("a random subset of equal size", lambda pair: not pair.kept),
    Variant("LoRA on attention and feed-forward", _curated, {"layers": ["attention", "feed_forward"]}),
    Variant(
        "LoRA on attention, feed-forward and convolutions",
        _curated,
        {"layers": ["attention", "feed_forward", "convolution"]},
    ),
    Variant("the whole UNet, at a tenth of the rate", _curated, {"method": "full"}),
    Variant("the last weights instead of the best", _curated, {"keep": "last"}),
    Variant("a moving average of the weights", _curated, {"ema_decay": 0.99}),
)


def main() -> None:
    """Train and score what is not there yet, then print the table."""
    given = _arguments()
    settings = read_settings()
    store, models = Store(settings.data), Models.of(settings)
    folder = settings.data / "ablation" / given.style
    curation = curate_pairs(store, models, given.style, keep=KEEP, sample_share=SAMPLE_SHARE).record
    chosen = [variant for variant in VARIANTS if not given.only or variant.name in given.only]
    done: dict[str, list[dict[str, Any]]] = {}
    for seed in range(given.seeds):
        for variant in chosen:
            found = _scored(store, models, curation, variant, seed, given, folder)
            done.setdefault(variant.name, []).append(found)
            (folder / "results.md").write_text(_table(done), encoding="utf-8")
    print(_table(done))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("style")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--products", type=int, default=60)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--only", nargs="*")
    return parser.parse_args()


def _scored(
    store: Store, models: Models, curation: Record, variant: Variant, seed: int, given: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """The scores of a variant with a seed, by product; from disk if they are there."""
    knobs = dict(variant.knobs) | {"seed": seed} | ({"steps": given.steps} if given.steps else {})
    if variant.knobs.get("method") == "full":
        knobs["learning_rate"] = models.profile.training.learning_rate / 10
    recipe = models.profile.training.changed(knobs)
    pairs = [pair for pair in Pair.read(curation.table("training_pairs")) if variant.pairs(pair)]
    job = training_job(store, models, curation, recipe, pairs)
    key, _ = training_identity(models, job)
    file = folder / f"{key}-{given.products}.json"
    if not file.exists():
        print(f"{variant.name}, seed {seed}: {len(pairs)} pairs, training {key}", flush=True)
        job = replace(job, output=folder / key)
        job.output.mkdir(parents=True, exist_ok=True)
        result = finetune(models, job, variant.name, lambda row: None, lambda text: None)
        export_weights(models, job.output, job.output / "model")
        scores = _compare(store, models, curation, job.output / "model", given.products)
        remove(job.output / "model")
        remove(job.output / "checkpoints")
        write_json(file, {"variant": variant.name, "seed": seed, "pairs": len(pairs), "step": result.step, **scores})
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _compare(store: Store, models: Models, curation: Record, model: Path, products: int) -> dict[str, Any]:
    """For each encoder and split the scores of the products by the original and by the variant."""
    catalog = store.records.input(curation, "catalog")
    plain = write("plain", store.sources.subject(catalog.style), [], prompt_fits(models))
    samples: list[Sample] = []
    for name, place in ((Model.ORIGINAL, None), (Model.SPECIALISED, model)):
        with models.generator(place) as generator:
            studio = Studio(store, generator, name, models.profile.generation, lambda text: None)
            for split in (Split.DEV, Split.TEST):
                photos = photos_of(store.photos(catalog), split, products)
                samples += studio.shoot(plan([("plain", plain)], photos, split))
    measured = measure(store, models, catalog, [(s.id, s.reference) for s in samples], lambda text: None)
    scores = rows_to_table(
        "scores", rows_of(product_scores(rows_to_table("samples", rows_of(samples)), measured.table))
    )
    after, before = Condition(Model.SPECIALISED, "plain"), Condition(Model.ORIGINAL, "plain")
    found: dict[str, Any] = {}
    for role in Role:
        for split in (Split.DEV, Split.TEST):
            ours, theirs = paired_scores(scores, after, before, measure=role, split=split)
            found[f"{role} {split}"] = {"variant": list(map(float, ours)), "original": list(map(float, theirs))}
    return found


def _table(done: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a row a variant; each product's score is its mean over the seeds."""
    head = "| trained on, and how | pairs | step | encoder | gain | judge | gain |\n" + "| --- " * 7 + "|\n"
    original = next(iter(done.values()))[0]
    first = [_mean([original], "encoder dev", "original"), _mean([original], "judge dev", "original")]
    rows = [f"| nothing: the original | | | {first[0].mean():.3f} | | {first[1].mean():.3f} | |"]
    for name, runs in done.items():
        cells = [name, str(runs[0]["pairs"]), ", ".join(str(run["step"]) for run in runs)]
        for role in ("encoder dev", "judge dev"):
            ours, theirs = _mean(runs, role, "variant"), _mean(runs, role, "original")
            cells += [f"{ours.mean():.3f}", told(paired(ours, theirs))]
        rows.append(f"| {' | '.join(cells)} |")
    return head + "\n".join(rows) + "\n"


def _mean(runs: Sequence[dict[str, Any]], measure: str, whose: str) -> Any:
    return np.mean([run[measure][whose] for run in runs], axis=0)


if __name__ == "__main__":
    main()
