"""What the page of everything behind a published version shows, from the version's own trail."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from fashion_pipeline.core.reports.links import (
    run_link,
    sample_link,
    version_link,
    version_photo_link,
    version_report_link,
)
from fashion_pipeline.core.reports.trail import DrawnImage, JudgedProduct, Source, Trail, TrainedImage
from fashion_pipeline.core.rows import Model, Origin, Pair, Role, Sample, Split
from fashion_pipeline.intake.photos import located, open_photo
from fashion_pipeline.stages.publishing.tracing import Made, trail_of, trained_pairs
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.store import Store

PART = 60
"""Training images, and products, of one part of a page."""

ORDER = [Model.ORIGINAL, Model.CHAMPION, Model.SPECIALISED]


def version_trail(store: Store, style: str, version: str, part: int = 1) -> Trail:
    """One part of the page of a version, the first being 1. Raises StorageError for a version that is not there."""
    folder = store.versions.folder(style, version)
    report = store.versions.report(style, version)
    records, withdrawn = trail_of(store, style, version), store.withdrawals.ids()
    pairs = _by_image(trained_pairs(records))
    products = _products(records)
    parts = max(1, *(-(-len(rows) // PART) for rows in (pairs, products)))
    if not 1 <= part <= parts:
        raise StorageError(f"version {version} of {style!r} has {parts} parts, and no part {part}")
    shown = slice((part - 1) * PART, part * PART)
    scores = _scores(records)

    def photo(id_: str) -> str | None:
        return None if id_ in withdrawn else version_photo_link(style, version, id_)

    return Trail(
        style=style,
        version=version,
        created=_moment(store.versions.created(folder)),
        decision=report.told(),
        in_use=store.versions.pointer(style).version == version,
        report=version_report_link(style, version),
        trained=[
            TrainedImage(
                pair.id,
                pair.origin,
                captions,
                pair.why,
                sample_link(pair.id) if pair.origin == Origin.SAMPLE else photo(pair.id),
            )
            for pair, captions in pairs[shown]
        ],
        trained_count=len(pairs),
        prompts=records["search"].table("leaderboard").to_pylist() if "search" in records else [],
        products=[
            JudgedProduct(samples[0].reference, samples[0].split, photo(samples[0].reference), _drawn(samples, scores))
            for samples in products[shown]
        ],
        products_count=len(products),
        scores=report.scores,
        records=[
            Source(kind, record["key"], _moment(record["created"]), record["run"], run_link(record["run"]))
            for kind, each in records.items()
            for record in [each.record()]
        ],
        folder=str(folder),
        part=part,
        parts=parts,
        others=[(each.name, version_link(style, each.name)) for each in store.versions.all(style) if each != folder],
    )


def version_photo(store: Store, style: str, version: str, photo: str, side: int) -> Image.Image:
    """A photo that went into a version, at most `side` pixels wide and high.

    Where the file is gone or another one now, what the version itself keeps of it: 16 x 16 pixels. Raises StorageError
    for a photo that did not go into it, or that was withdrawn.
    """
    records = trail_of(store, style, version)
    rows = {row["id"]: row for row in records["catalog"].table("images").to_pylist()} if "catalog" in records else {}
    if photo not in rows or photo in store.withdrawals.ids():
        raise StorageError(f"photo {photo} did not go into version {version} of {style!r}, or was withdrawn")
    try:
        place = located(rows[photo]["path"], store.sources.source(style).base)
        image = open_photo(place, content=photo)
    except Exception:  # whatever a file that is gone, moved or broken raises
        small = Image.frombytes("RGB", (16, 16), rows[photo]["thumbnail"])
        return small.resize((side, side), Image.Resampling.BICUBIC)
    image.thumbnail((side, side))
    return image


def _moment(created: str) -> str:
    """2026-11-25T16:14:51+00:00 → 2026-11-25 16:14 UTC."""
    return f"{created[:16].replace('T', ' ')} UTC" if created else ""


def _by_image(pairs: Sequence[Pair]) -> list[tuple[Pair, list[str]]]:
    """The first pair of each image, and all captions that it was trained with."""
    captions: dict[str, list[str]] = {}
    for pair in pairs:
        captions.setdefault(pair.id, []).append(pair.caption)
    first = {pair.id: pair for pair in reversed(pairs)}
    return [(first[id_], list(dict.fromkeys(texts))) for id_, texts in captions.items()]


def _products(made: Mapping[str, Made]) -> list[list[Sample]]:
    """The samples of each product that was judged, dev before test."""
    if "evaluation" not in made:
        return []
    samples_of: dict[tuple[str, str], list[Sample]] = {}
    for sample in Sample.read(made["evaluation"].table("evaluation_samples")):
        if sample.purpose in (Split.DEV, Split.TEST):
            samples_of.setdefault((sample.split, sample.product_group), []).append(sample)
    return [samples_of[key] for key in sorted(samples_of)]


def _scores(made: Mapping[str, Made]) -> dict[tuple[str, str, str], dict[str, float]]:
    """(model, prompt, product) → encoder, judge → similarity."""
    scores: dict[tuple[str, str, str], dict[str, float]] = {}
    rows: list[dict[str, Any]] = made["evaluation"].table("scores").to_pylist() if "evaluation" in made else []
    for row in rows:
        if row["measure"] in list(Role) and row["product_group"]:
            key = (row["model"], row["prompt"], row["product_group"])
            scores.setdefault(key, {})[row["measure"]] = row["value"]
    return scores


def _drawn(samples: Sequence[Sample], scores: Mapping[tuple[str, str, str], dict[str, float]]) -> list[DrawnImage]:
    def place(sample: Sample) -> tuple[int, str]:
        return ORDER.index(Model(sample.model_name)), "" if sample.prompt_name == "plain" else sample.prompt_name

    return [
        DrawnImage(
            each.id,
            each.model_name,
            each.prompt_name,
            each.prompt,
            each.seed,
            sample_link(each.id),
            scores.get((each.model_name, each.prompt_name, each.product_group), {}),
        )
        for each in sorted(samples, key=place)
    ]
