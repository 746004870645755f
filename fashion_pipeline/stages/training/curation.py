"""Stage 6: the images that the model is trained on, their captions, and why they were kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from fashion_pipeline.core.features.similarity import typicality, within_similarity
from fashion_pipeline.core.rows import Origin, Pair, Photo, Role, Split, rows_of
from fashion_pipeline.core.training.curation import Item, curate, validation_photos
from fashion_pipeline.intake.assembling import near_held_out
from fashion_pipeline.stages.catalog.features import features_of
from fashion_pipeline.stages.drawing.drawing import Report
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.prompts.candidates import search_photos
from fashion_pipeline.stages.prompts.captions import caption_format, photo_captions, too_long
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store


@dataclass(frozen=True)
class Curated:
    """The training pairs of a style."""

    record: Record
    pairs: list[Pair]
    strategy: str
    threshold: float
    """Least similarity of a sample; infinite where no sample may pass."""
    outside: list[str]
    """Photos among the pairs that lie in dev or test, or are near-duplicates of one that does; none is right."""
    cut: list[str]
    """Captions of photos that are too long for the text encoder: what fits of them is trained with."""

    @property
    def kept(self) -> list[Pair]:
        """The curated pairs, without the control."""
        return [pair for pair in self.pairs if pair.kept]

    def count(self, origin: str) -> int:
        """Images among the curated pairs."""
        return len({pair.id for pair in self.kept if pair.origin == origin})


def curate_pairs(
    store: Store,
    models: Models,
    style: str,
    *,
    keep: float,
    sample_share: float,
    tell: Report = lambda text: None,
    run: str = "",
) -> Curated:
    """The training pairs that earned their place, and a random control of equal size.

    `tell` hears of damage, and of captions that were cut.
    """
    features = features_of(store, models, style)
    catalog = store.records.input(features, "catalog")
    searched, similarity = _search(store, style)
    strategy = caption_format(searched)
    model = str(features.made_of[Role.ENCODER])
    photos = search_photos(store, catalog)
    embeddings = store.features.index(style, Role.ENCODER, model).rows([photo.id for photo in photos])
    groups = [photo.product_group for photo in photos]
    within = within_similarity(embeddings, groups)
    threshold = float("inf") if within is None else within
    captions = photo_captions(store, models, features, strategy)
    listed = dict(zip(*(catalog.table("images")[name].to_pylist() for name in ("id", "path")), strict=True))
    validation = {photo.product_group for photo in validation_photos(photos)}
    references = [
        Item(photo.id, Origin.REFERENCE, listed[photo.id], captions[photo.id], float(score))
        for photo, score in zip(photos, typicality(embeddings, groups), strict=True)
        if photo.product_group not in validation
    ]
    samples = _samples(searched, similarity, model, validation) if searched and similarity else []
    pairs = curate(references, samples, keep=keep, sample_share=sample_share, threshold=threshold)
    inputs = {"catalog": catalog, "features": features}
    inputs |= {"search": searched, "similarity": similarity} if searched and similarity else {}
    record = store.records.add(
        "curation",
        style,
        inputs=inputs,
        made_of={"keep": keep, "sample_share": sample_share, "format": strategy},
        tables={"training_pairs": rows_of(pairs)},
        run=run,
    )
    trained = {pair.id for pair in pairs if pair.origin == Origin.REFERENCE}
    known = replace(store.known(style, tell), own=catalog.table("images"))
    cut = [str(photo.caption) for photo in too_long(models, photos)]
    if cut:
        tell(f"{len(cut)} captions are too long for the text encoder and were cut, the first one: {cut[0]!r:.300}")
    return Curated(record, pairs, strategy, threshold, near_held_out(trained, known), cut)


def _search(store: Store, style: str) -> tuple[Record | None, Record | None]:
    """The newest table of similarities and the search it measured; without one no sample is trained on."""
    similarity = store.records.newest("similarity", style)
    return (
        store.records.input(similarity, "search") if similarity else store.records.newest("search", style)
    ), similarity


def _samples(searched: Record, similarity: Record, model: str, validation: set[str]) -> list[Item]:
    """The samples of the search with their similarity, but for those of validation products."""
    measured = similarity.table("similarities", ("sample", "role", "model", "cosine"))
    chosen = measured.filter((pc.field("role") == Role.ENCODER.value) & (pc.field("model") == model))
    cosines = dict(zip(chosen["sample"].to_pylist(), chosen["cosine"].to_pylist(), strict=True))
    samples = searched.table("samples", ("id", "prompt", "purpose", "product_group"))
    held_back = pa.array(sorted(validation), pa.string())
    usable = samples.filter((pc.field("purpose") == Split.SEARCH.value) & ~pc.field("product_group").isin(held_back))
    prompts = dict(zip(usable["id"].to_pylist(), usable["prompt"].to_pylist(), strict=True))
    return [Item(id_, Origin.SAMPLE, "", (prompts[id_],), cosines[id_]) for id_ in prompts if id_ in cosines]


def training_images(store: Store, catalog: Record, pairs: Sequence[Pair]) -> dict[str, str]:
    """Image → where it lies, of the photos and samples of some pairs."""
    photos: dict[str, Photo] = {photo.id: photo for photo in store.photos(catalog)}
    return {
        pair.id: photos[pair.id].path if pair.origin == Origin.REFERENCE else str(store.samples.path(pair.id))
        for pair in pairs
    }
