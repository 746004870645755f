"""Drawing and embedding what is not there yet: shared by the search and the evaluation."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fashion_pipeline.core.features import FeatureIndex, feature_rows
from fashion_pipeline.core.photos import open_photo
from fashion_pipeline.core.samples import Shot, sample_row
from fashion_pipeline.resources.storage import Storage
from fashion_pipeline.settings import GenerationDefaults

if TYPE_CHECKING:
    from fashion_pipeline.ml.diffusion import Generator
    from fashion_pipeline.ml.encoders import JudgeEncoder

Report = Callable[[str], None]
PROGRESS_EVERY = 64


class Studio:
    """One generator, drawing for one style. Images that exist are never drawn again."""

    def __init__(
        self,
        storage: Storage,
        generator: "Generator",
        model_name: str,
        generation: GenerationDefaults,
        report: Report,
    ) -> None:
        self._storage, self._generator, self._model_name = storage, generator, model_name
        self._generation, self._report = generation, report
        self.drawn = 0
        """Images drawn so far; those found on disk do not count."""

    def shoot(self, shots: Sequence[Shot]) -> list[dict[str, Any]]:
        """The rows of all shots, in order, with every image on disk."""
        g = self._generation
        requests = [shot.request(size=g.image_size, steps=g.steps, guidance=g.guidance) for shot in shots]
        names = [self._generator.sample_id(request) for request in requests]
        todo = {
            name: request
            for name, request in zip(names, requests, strict=True)
            if not self._storage.sample_path(name).exists()
        }
        waiting = list(todo)
        for done, (index, image) in enumerate(self._generator.draw(list(todo.values())), start=1):
            self._storage.write_sample(waiting[index], image)
            if done % PROGRESS_EVERY == 0 or done == len(waiting):
                self._report(f"{self._model_name}: {done} of {len(waiting)} images drawn")
        self.drawn += len(waiting)
        return [
            sample_row(shot, request, name, self._generator.fingerprint, self._model_name)
            for shot, request, name in zip(shots, requests, names, strict=True)
        ]


def embed_photos(
    storage: Storage, style: str, images: pa.Table, encoders: Mapping[str, "JudgeEncoder"], report: Report
) -> int:
    """Bring table `features` of a style up to date with its photos; returns how many embeddings were computed."""
    locations = dict(zip(images["id"].to_pylist(), images["path"].to_pylist(), strict=True))
    return _embed(storage, "features", style, locations, encoders, report)


def embed_samples(
    storage: Storage, style: str, samples: Sequence[str], encoders: Mapping[str, "JudgeEncoder"], report: Report
) -> int:
    """Bring table `sample_features` of a style up to date with its samples; returns how many were computed."""
    locations = {sample: str(storage.sample_path(sample)) for sample in samples}
    known = dict.fromkeys(storage.read("sample_features", style)["id"].to_pylist(), "")
    return _embed(storage, "sample_features", style, known | locations, encoders, report)


def index(storage: Storage, table: str, style: str, role: str, model: str) -> FeatureIndex:
    """The embeddings of a style's photos (`features`) or samples (`sample_features`)."""
    return FeatureIndex(storage.read(table, style), role, model)


def _embed(
    storage: Storage,
    table: str,
    style: str,
    locations: Mapping[str, str],
    encoders: Mapping[str, "JudgeEncoder"],
    report: Report,
) -> int:
    """Keep the rows of these ids, and add the embeddings that an encoder has not made of them yet."""
    before = storage.read(table, style)
    rows = [row for row in before.to_pylist() if row["id"] in locations]
    computed = 0
    for role, encoder in encoders.items():
        known = FeatureIndex(before, role, encoder.fingerprint)
        missing = [id_ for id_ in known.missing(list(locations)) if locations[id_]]
        if missing:
            report(f"{role}: embedding {len(missing)} images")
            embeddings = encoder.embed_images(open_photo(locations[id_]) for id_ in missing)
            rows += feature_rows(missing, role, encoder.fingerprint, embeddings)
            computed += len(missing)
    storage.write(table, style, rows)
    return computed
