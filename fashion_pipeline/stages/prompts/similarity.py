"""Stage 5: how close every sample came to its photo, and between which anchors that lies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fashion_pipeline.core.evaluation.scores import similarity_table
from fashion_pipeline.core.features.similarity import Anchors, anchors
from fashion_pipeline.core.rows import Role, Split
from fashion_pipeline.stages.catalog.features import neighbours
from fashion_pipeline.stages.drawing.drawing import Embedder, Report
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.drawing.workers import ImageEncoder
from fashion_pipeline.store.records import Record
from fashion_pipeline.store.store import Store


@dataclass(frozen=True)
class Anchored:
    """What 0 and 1 mean for a style, by one model, and which other styles that rests on."""

    anchors: Anchors | None
    on: Mapping[str, str]
    """Other style → key of its features."""
    left_out: Sequence[str]
    """Other styles that another model described, or that are damaged: materialise them for them to count."""


@dataclass(frozen=True)
class Measured:
    """Cosines of samples, by encoder and judge."""

    table: pa.Table
    """Table `similarities`."""
    anchored: Mapping[str, Anchored]
    """Role → its anchors."""
    models: Mapping[str, str]
    """Role → fingerprint."""

    @property
    def left_out(self) -> list[str]:
        """Other styles that give no anchors, because another encoder or judge described them."""
        return sorted({style for each in self.anchored.values() for style in each.left_out})

    def made_of(self) -> dict[str, Any]:
        """What a record of these figures rests on, beside its inputs."""
        return {**self.models, "anchored on": {role: dict(each.on) for role, each in self.anchored.items()}}


@dataclass(frozen=True)
class Compared:
    """The table of similarities."""

    record: Record
    table: pa.Table
    measured: Measured

    def mean(self, role: str) -> float:
        """Mean cosine by the encoder or the judge."""
        return float(pc.mean(self.table.filter(pc.field("role") == role)["cosine"]).as_py())


def compare_samples(store: Store, models: Models, style: str, report: Report, run: str = "") -> Compared:
    """The cosine of every sample of the newest search to its photo."""
    searched = store.records.latest("search", style)
    catalog = store.records.input(searched, "catalog")
    samples = searched.table("samples", ("id", "reference"))
    pairs = list(zip(samples["id"].to_pylist(), samples["reference"].to_pylist(), strict=True))
    measured = measure(store, models, catalog, pairs, report)
    record = store.records.add(
        "similarity",
        style,
        inputs={"search": searched, "catalog": catalog},
        made_of=measured.made_of(),
        tables={"similarities": measured.table},
        run=run,
    )
    return Compared(record, measured.table, measured)


def measure(
    store: Store, models: Models, catalog: Record, pairs: Sequence[tuple[str, str]], report: Report
) -> Measured:
    """Every (sample, photo) by encoder and judge; samples of other styles' photos are only embedded."""
    style = catalog.style
    photos = {photo.id: photo.path for photo in store.photos(catalog)}
    samples = [sample for sample, _ in pairs]
    of_style = [pair for pair in pairs if pair[1] in photos]
    anchored: dict[str, Anchored] = {}

    def table(role: str, model: ImageEncoder) -> pa.Table:
        embedder = partial(Embedder, style=style, role=role, encoder=model, report=report, workers=models.workers)
        real = embedder(store.features).embed(photos, photos.__getitem__)
        drawn_index = embedder(store.sample_features).embed(samples, store.samples.location)
        anchored[role] = style_anchors(store, catalog, role, model.fingerprint)
        return similarity_table(of_style, real, drawn_index, anchored[role].anchors)

    with models.encoder() as encoder, models.judge() as judge:
        encoders = {Role.ENCODER.value: encoder, Role.JUDGE.value: judge}
        tables = [table(role, model) for role, model in encoders.items()]  # one's embeddings in memory at a time
        used = {role: model.fingerprint for role, model in encoders.items()}
    return Measured(pa.concat_tables(tables), anchored, used)


def style_anchors(store: Store, catalog: Record, role: str, model: str) -> Anchored:
    """What 0 and 1 mean for this style: from its own search photos and those of all other styles."""
    search_photos = [photo for photo in store.photos(catalog) if photo.split == Split.SEARCH]
    embeddings = store.features.index(catalog.style, role, model)
    described, left_out = neighbours(store, catalog.style)
    centres, photos, on = [], [], {}
    for other in described:
        if other.features.made_of[role] != model:
            left_out.append(other.features.style)
            continue
        on[other.features.style] = other.features.key
        if centre := other.summary.centres[role]:
            centres.append(centre)
            photos.append(other.summary.photos)
    elsewhere = np.average(np.array(centres), axis=0, weights=photos) if centres else None
    anchored = anchors(
        embeddings.rows([photo.id for photo in search_photos]),
        [photo.product_group for photo in search_photos],
        elsewhere,
    )
    return Anchored(anchored, on, left_out)
