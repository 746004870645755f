"""Drawing and embedding what is not there yet: shared by the search, the table of similarities and the evaluation."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_pipeline.core.features.embeddings import FeatureIndex
from fashion_pipeline.core.features.shuffling import shuffled_id
from fashion_pipeline.core.progress import Meter
from fashion_pipeline.core.prompts.planning import Shot, sample_of
from fashion_pipeline.core.prompts.requests import Drawing, GeneratorIdentity, Request
from fashion_pipeline.core.rows import Sample
from fashion_pipeline.stages.drawing.workers import ImageEncoder, ImageGenerator, Picture, Workers, embed_here
from fashion_pipeline.store.embeddings import PHOTOS, Embeddings
from fashion_pipeline.store.store import Store

Report = Callable[[str], None]
OVERSIZE = 4
"""Photos are decoded at so many times the side that the encoder sees: smaller files take a third of the time, and the
embeddings of everyday photos changed by less than 1e-4 in cosine."""

MAX_SIDE = 1024
"""But never larger."""

CHUNK = 64
"""Images embedded at a time."""

KEEP_SECONDS = 5.0
"""After so long embeddings are written to disk: what a killed run loses at most. A file a chunk would be thousands."""


class Studio:
    """One generator. Images that exist and can be read are never drawn again."""

    def __init__(
        self, store: Store, generator: ImageGenerator, model_name: str, drawing: Drawing, report: Report
    ) -> None:
        self._samples, self._generator, self._model_name = store.samples, generator, model_name
        self._drawing, self._report = drawing, report
        self.drawn = 0
        """Images drawn so far; those found on disk do not count."""

    def shoot(self, shots: Sequence[Shot]) -> list[Sample]:
        """The samples of all shots, in order, with every image on disk."""
        requests = [shot.request(self._drawing) for shot in shots]
        identity = self._generator.identity()
        there = [self._known(identity, request) for request in requests]
        names = [name or identity.sample_id(request) for name, request in zip(there, requests, strict=True)]
        missing = {name: at for at, name in enumerate(names) if there[at] is None}
        drawn: dict[str, str] = {}
        waiting = list(missing)
        meter = Meter(self._report, f"{self._model_name}: {{}} images drawn", len(waiting))
        wanted = [requests[missing[name]] for name in waiting]
        for done, image in enumerate(self._generator.draw(wanted) if wanted else (), start=1):
            self._samples.write(image.id, image.image)
            drawn[waiting[image.index]] = image.id
            meter.reach(done)
        self.drawn += len(waiting)
        return [
            sample_of(shot, request, drawn.get(name, name), identity.generator, self._model_name)
            for shot, request, name in zip(shots, requests, names, strict=True)
        ]

    def _known(self, identity: GeneratorIdentity, request: Request) -> str | None:
        """The image of a request that is there, also one of a smaller batch: memory may have run out at this one."""
        names = (each.sample_id(request) for each in (identity, *identity.smaller()))
        return next((name for name in names if self._samples.readable(name)), None)


class Embedder:
    """One encoder's embeddings of a style's photos or samples: those on disk, and those that it adds."""

    def __init__(
        self,
        table: Embeddings,
        style: str,
        role: str,
        encoder: ImageEncoder,
        report: Report,
        workers: Workers | None = None,
    ) -> None:
        """With `workers` other processes embed, else `encoder` itself."""
        self._table, self._style, self._role = table, style, role
        self._encoder, self._report, self._workers = encoder, report, workers
        self.index: FeatureIndex = table.index(style, role, encoder.fingerprint)
        """The embeddings on disk; a call adds what it embeds when it ends."""
        self.computed = 0
        """Embeddings computed so far; those found on disk do not count."""

    def embed(self, ids: Iterable[str], locate: Callable[[str], str]) -> FeatureIndex:
        """Embed the images that are not known yet, from where `locate` says that each lies.

        Raises PhotoError that names one that vanished.
        """
        return self._embed(ids, "images", lambda id_: self.picture(id_, locate(id_)))

    def embed_shuffled(self, ids: Iterable[str], locate: Callable[[str], str]) -> FeatureIndex:
        """Embed the same images cut into shuffled pieces, under `shuffled_id`."""
        original_of = {shuffled_id(id_): id_ for id_ in ids}
        return self._embed(
            original_of,
            "shuffled images",
            lambda name: self.picture(original_of[name], locate(original_of[name]), True),
        )

    def add(self, ids: Sequence[str], images: Iterable[Image.Image]) -> None:
        """Embed images and keep what comes of them."""
        rows = self._encoder.embed_images(images)
        self._keep(ids, rows)
        self.index = self.index.extended(ids, rows)

    def picture(self, id_: str, location: str, shuffled: bool = False) -> Picture:
        """An image, no larger than the encoder can make use of. Photos are named by their bytes, samples are not."""
        side = min(MAX_SIDE, OVERSIZE * self._encoder.side)
        return Picture(id_, location, side, self._table.table == PHOTOS, shuffled)

    def _embed(self, names: Iterable[str], what: str, picture: Callable[[str], Picture]) -> FeatureIndex:
        missing = self.index.missing(names)
        chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
        pieces = [[picture(name) for name in chunk] for chunk in chunks]
        done = (
            self._workers.embed(self._role, pieces) if self._workers and pieces else embed_here(self._encoder, pieces)
        )
        meter = Meter(self._report, f"{self._role}: {{}} {what} embedded", len(missing))
        fresh, kept, until = _Rows(), _Rows(), time.monotonic() + KEEP_SECONDS
        try:
            for number, rows in done:
                fresh.add(chunks[number], rows)
                if time.monotonic() > until:
                    self._keep(fresh.ids, fresh.matrix())
                    kept.add(fresh.ids, fresh.matrix())
                    fresh, until = _Rows(), time.monotonic() + KEEP_SECONDS
                meter.reach(len(kept.ids) + len(fresh.ids))
        finally:
            if fresh.ids:
                self._keep(fresh.ids, fresh.matrix())
                kept.add(fresh.ids, fresh.matrix())
            if kept.ids:
                self.index = self.index.extended(kept.ids, kept.matrix())
        return self.index

    def _keep(self, ids: Sequence[str], rows: NDArray[np.float32]) -> None:
        self._table.add(self._style, self._role, self._encoder.fingerprint, ids, rows)
        self.computed += len(ids)


@dataclass
class _Rows:
    """Embeddings in the order in which they came."""

    ids: list[str] = field(default_factory=list)
    parts: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, ids: Sequence[str], rows: NDArray[np.float32]) -> None:
        self.ids += ids
        self.parts.append(rows)

    def matrix(self) -> NDArray[np.float32]:
        return np.concatenate(self.parts)
