"""Drawing and embedding what is not there yet: shared by the search, the table of similarities and the evaluation."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_pipeline.core.catalog.photos import PhotoError, open_photo
from fashion_pipeline.core.features.embeddings import FeatureIndex
from fashion_pipeline.core.features.shuffling import shuffled, shuffled_id
from fashion_pipeline.core.progress import Meter
from fashion_pipeline.core.prompts.planning import Shot, sample_of
from fashion_pipeline.core.prompts.requests import Drawing
from fashion_pipeline.core.rows import Sample
from fashion_pipeline.store.embeddings import PHOTOS, Embeddings
from fashion_pipeline.store.store import Store

if TYPE_CHECKING:
    from fashion_pipeline.ml.diffusion import Generator

Report = Callable[[str], None]
OVERSIZE = 4
"""Photos are decoded at so many times the side that the encoder sees: smaller files take a third of the time, and the
embeddings of everyday photos changed by less than 1e-4 in cosine."""

MAX_SIDE = 1024
"""But never larger."""

AHEAD = 16
"""Images decoded ahead of the encoder."""

CHUNK = 64
"""Images embedded at a time."""

KEEP_SECONDS = 5.0
"""After so long embeddings are written to disk: what a killed run loses at most. A file a chunk would be thousands."""


class Studio:
    """One generator. Images that exist and can be read are never drawn again."""

    def __init__(self, store: Store, generator: "Generator", model_name: str, drawing: Drawing, report: Report) -> None:
        self._samples, self._generator, self._model_name = store.samples, generator, model_name
        self._drawing, self._report = drawing, report
        self.drawn = 0
        """Images drawn so far; those found on disk do not count."""

    def shoot(self, shots: Sequence[Shot]) -> list[Sample]:
        """The samples of all shots, in order, with every image on disk."""
        requests = [shot.request(self._drawing) for shot in shots]
        names = [self._generator.sample_id(request) for request in requests]
        missing = {name: at for at, name in enumerate(names) if not self._samples.readable(name)}
        drawn: dict[str, str] = {}
        waiting = list(missing)
        meter = Meter(self._report, f"{self._model_name}: {{}} images drawn", len(waiting))
        for done, image in enumerate(self._generator.draw([requests[missing[name]] for name in waiting]), start=1):
            self._samples.write(image.id, image.image)
            drawn[waiting[image.index]] = image.id
            meter.reach(done)
        self.drawn += len(waiting)
        fingerprint = self._generator.fingerprint
        return [
            sample_of(shot, request, drawn.get(name, name), fingerprint, self._model_name)
            for shot, request, name in zip(shots, requests, names, strict=True)
        ]


class ImageEncoder(Protocol):
    """What turns images into rows: an encoder, a judge, or anything that compares pictures."""

    fingerprint: str

    @property
    def side(self) -> int:
        """Pixels of the longer side of what it sees."""
        ...

    def embed_images(self, images: Iterable[Image.Image]) -> NDArray[np.float32]:
        """n RGB images of any sizes → (n, d) rows."""
        ...


class Embedder:
    """One encoder's embeddings of a style's photos or samples: what is known, and what it adds."""

    def __init__(self, table: Embeddings, style: str, role: str, encoder: ImageEncoder, report: Report) -> None:
        self._table, self._style, self._role = table, style, role
        self._encoder, self._report = encoder, report
        self.index: FeatureIndex = table.index(style, role, encoder.fingerprint)
        """What is known so far; what a call is embedding follows at its end."""
        self.computed = 0
        """Embeddings computed so far; those found on disk do not count."""

    def embed(self, ids: Iterable[str], locate: Callable[[str], str]) -> FeatureIndex:
        """Embed the images that are not known yet, from where `locate` says that each lies.

        Raises PhotoError that names one that vanished.
        """
        return self._embed(ids, "images", lambda some: in_threads(lambda id_: self.open(locate(id_), id_), some))

    def embed_shuffled(self, ids: Iterable[str], locate: Callable[[str], str]) -> FeatureIndex:
        """Embed the same images cut into shuffled pieces, under `shuffled_id`."""
        own = {shuffled_id(id_): id_ for id_ in ids}

        def pieces(names: Sequence[str]) -> Iterator[Image.Image]:
            return in_threads(lambda id_: shuffled(self.open(locate(id_), id_), id_), [own[name] for name in names])

        return self._embed(own, "shuffled images", pieces)

    def add(self, ids: Sequence[str], images: Iterable[Image.Image]) -> None:
        """Embed images and keep what comes of them."""
        rows = self._encoder.embed_images(images)
        self._keep(ids, rows)
        self.index = self.index.extended(ids, rows)

    def open(self, location: str, id_: str) -> Image.Image:
        """An image, no larger than the encoder can make use of. Photos are named by their bytes, samples are not."""
        content = id_ if self._table.table == PHOTOS else ""
        try:
            return open_photo(location, min(MAX_SIDE, OVERSIZE * self._encoder.side), content)
        except PhotoError as error:
            raise PhotoError(f"{location}: {error}; or materialise raw_images again to leave it out") from error

    def _embed(
        self, names: Iterable[str], what: str, images: Callable[[Sequence[str]], Iterator[Image.Image]]
    ) -> FeatureIndex:
        missing = self.index.missing(names)
        meter = Meter(self._report, f"{self._role}: {{}} {what} embedded", len(missing))
        rows: list[NDArray[np.float32]] = []
        kept, done, until = 0, 0, time.monotonic() + KEEP_SECONDS
        try:
            for start in range(0, len(missing), CHUNK):
                chunk = missing[start : start + CHUNK]
                rows.append(self._encoder.embed_images(images(chunk)))
                done += len(chunk)
                if time.monotonic() > until:
                    self._keep(missing[kept:done], np.concatenate(rows)[kept:])
                    kept, until = done, time.monotonic() + KEEP_SECONDS
                meter.reach(done)
        finally:
            if done > kept:
                self._keep(missing[kept:done], np.concatenate(rows)[kept:])
            if rows:
                self.index = self.index.extended(missing[:done], np.concatenate(rows))
        return self.index

    def _keep(self, ids: Sequence[str], rows: NDArray[np.float32]) -> None:
        self._table.add(self._style, self._role, self._encoder.fingerprint, ids, rows)
        self.computed += len(ids)


def in_threads(open_one: Callable[[str], Image.Image], names: Sequence[str]) -> Iterator[Image.Image]:
    """What a function makes of each name, in order; as many at a time as there are cores, and few ahead of the caller.

    Decoding and scaling give the interpreter up, so that threads are as fast as processes here.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        waiting: deque[Future[Image.Image]] = deque()
        for name in names:
            waiting.append(pool.submit(open_one, name))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
