"""Stage 5: how close every sample came to its photo, and between which anchors that lies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fashion_pipeline.core.evaluation.scores import similarity_rows
from fashion_pipeline.core.features.similarity import Anchors, anchors
from fashion_pipeline.core.rows import Role, Sample, Split
from fashion_pipeline.stages.drawing import Embedder, Report
from fashion_pipeline.stages.features import neighbours
from fashion_pipeline.stages.models import Models
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

    rows: list[dict[str, Any]]
    """Of table `similarities`."""
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
        return float(np.mean([row["cosine"] for row in self.measured.rows if row["role"] == role]))


def compare_samples(store: Store, models: Models, style: str, report: Report, run: str = "") -> Compared:
    """The cosine of every sample of the newest search to its photo."""
    searched = store.records.latest("search", style)
    samples = Sample.read(searched.table("samples"))
    catalog = store.records.input(searched, "catalog")
    measured = measure(store, models, catalog, samples, report)
    record = store.records.add(
        "similarity",
        style,
        inputs={"search": searched, "catalog": catalog},
        made_of=measured.made_of(),
        tables={"similarities": measured.rows},
        run=run,
    )
    return Compared(record, record.table("similarities"), measured)


def measure(store: Store, models: Models, catalog: Record, samples: Sequence[Sample], report: Report) -> Measured:
    """Every sample against its photo, by encoder and judge; those of other styles' photos are only embedded."""
    style = catalog.style
    photos = {photo.id: photo.path for photo in store.photos(catalog)}
    drawn = {sample.id: str(store.samples.path(sample.id)) for sample in samples}
    own = [sample for sample in samples if sample.reference in photos]
    rows: list[dict[str, Any]] = []
    anchored: dict[str, Anchored] = {}
    with models.encoder() as encoder, models.judge() as judge:
        encoders = {Role.ENCODER.value: encoder, Role.JUDGE.value: judge}
        for role, model in encoders.items():
            real = Embedder(store.features, style, role, model, report).embed(photos)
            made = Embedder(store.sample_features, style, role, model, report).embed(drawn)
            anchored[role] = style_anchors(store, catalog, role, model.fingerprint)
            rows += similarity_rows(own, real, made, anchored[role].anchors)
        used = {role: model.fingerprint for role, model in encoders.items()}
    return Measured(rows, anchored, used)


def style_anchors(store: Store, catalog: Record, role: str, model: str) -> Anchored:
    """What 0 and 1 mean for this style: from its own search photos and those of all other styles."""
    own = [photo for photo in store.photos(catalog) if photo.split == Split.SEARCH]
    embeddings = store.features.index(catalog.style, role, model)
    described, left_out = neighbours(store, catalog.style)
    others, on = [], {}
    for features in described:
        if features.made_of[role] != model:
            left_out.append(features.style)
            continue
        on[features.style] = features.key
        there = store.photos(store.records.input(features, "catalog"))
        ids = [photo.id for photo in there if photo.split == Split.SEARCH]
        others.append(store.features.index(features.style, role, model).known(ids))
    filled = [rows for rows in others if len(rows)]
    elsewhere = np.concatenate(filled) if filled else np.empty((0, 0), np.float32)
    found = anchors(embeddings.rows([photo.id for photo in own]), [photo.product_group for photo in own], elsewhere)
    return Anchored(found, on, left_out)
