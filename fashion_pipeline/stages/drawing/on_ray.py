"""Embedding and drawing on a Ray cluster: pieces go to actors that hold the models from one stage to the next.

Not Ray Data: it starts its actors anew for each data set, and a search draws in a dozen rounds. Here each actor is
given two pieces at a time, so that memory is bounded; the pieces of one whose process or node died go to the others at
once, without waiting for a node that may never come back. What comes back is written by the process that asked, under
names made of content, so that nothing that was kept is computed again. Needs the extra `ray`; without it nothing of Ray
is imported.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fashion_pipeline.core.prompts.requests import GeneratorIdentity, Request, alike
from fashion_pipeline.core.rows import Role
from fashion_pipeline.intake.objects import is_url
from fashion_pipeline.intake.photos import PhotoError
from fashion_pipeline.settings import read_settings
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.drawing.workers import ImageEncoder, Picture, Pipeline, embed_here
from fashion_pipeline.store.storage.files import Files

if TYPE_CHECKING:
    from fashion_pipeline.ml.diffusion import Drawn, Generator

Piece = TypeVar("Piece")

AT_A_WORKER = 2
"""Pieces: one that it is at, and one that waits for it."""

MOST_DEATHS = 8
"""Workers that may die while something is spread: if there are more, it is the work that kills them."""


class WorkersError(RuntimeError):
    """The workers of a cluster died one after the other."""


@dataclass
class OnRay:
    """The workers of a Ray cluster, started when something is first asked of them and kept until the run ends."""

    profile: str
    device: str = "auto"
    precision: str = "auto"
    machine: Path | None = None
    workers: int = 0
    """Actors; 0: one for each graphics card of the cluster, or for each processor where it has no card."""
    connect: Callable[[], object] = lambda: None
    """Connects to the cluster, unless that is done."""
    _workers: list[Any] = field(default_factory=list)
    _coming: dict[Any, Any] = field(default_factory=dict)
    """What tells that a worker is there → the worker."""

    def embed(self, role: str, pieces: Sequence[Sequence[Picture]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """See `workers.Workers`."""
        asked = [(number, str(role), piece) for number, piece in enumerate(pieces)]
        for number, rows in self.stream(lambda worker, piece: worker.embed.remote(*piece), asked):
            if isinstance(rows, str):
                raise PhotoError(rows)
            yield number, rows

    def image_generator(self, pipeline: Pipeline) -> "RayImageGenerator":
        """See `workers.Workers`."""
        return RayImageGenerator(self, pipeline, self._models().profile.generation.batch_size)

    def release(self) -> None:
        """See `workers.Workers`."""
        import ray

        for worker in (*self._workers, *self._coming.values()):
            ray.kill(worker)
        self._workers, self._coming = [], {}

    def _models(self) -> Models:
        return Models(self.profile, self.device, self.precision, self.machine)

    def stream(self, ask: Callable[[Any, Piece], Any], pieces: Sequence[Piece]) -> Iterator[Any]:
        """What the workers make of each piece, as they are done. Raises what a piece raised there, or WorkersError."""
        import ray
        from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

        self.connect()
        left, deaths = deque(pieces), 0
        at_work: dict[Any, tuple[Any, Piece]] = {}
        while left or at_work:
            self._start(len(left) + len(at_work))
            for worker in self._workers:
                while left and sum(each is worker for each, _ in at_work.values()) < AT_A_WORKER:
                    piece = left.popleft()
                    at_work[ask(worker, piece)] = worker, piece
            (done,), _ = ray.wait([*at_work, *self._coming], num_returns=1)
            worker, given = (self._coming.pop(done), None) if done in self._coming else at_work.pop(done)
            try:
                answer = ray.get(done)
            except RayTaskError as error:
                raise error.cause from error
            except (RayActorError, ObjectLostError) as error:  # its process or node died: others do what it had
                others = [each for each in self._workers if each is not worker]
                deaths += given is None or len(others) < len(self._workers)  # and not once more for each of its pieces
                if deaths > MOST_DEATHS:
                    raise WorkersError(f"{deaths} workers died: see what Ray tells of them ({error})") from error
                self._workers = others
                left.extendleft([given] if given is not None else [])
                continue
            if given is None:
                self._workers.append(worker)
            else:
                yield answer

    def _start(self, pieces: int) -> None:
        """Ask for workers, one for each piece at most. They come when the cluster has a place for them."""
        import ray

        cards = int(ray.cluster_resources().get("GPU", 0))
        most = self.workers or cards or int(ray.cluster_resources().get("CPU", 1))
        needs: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if cards else {"num_cpus": 1}
        while len(self._workers) + len(self._coming) < min(most, pieces):
            worker = ray.remote(**needs)(Worker).remote(self._models())
            self._coming[worker.ready.remote()] = worker


@dataclass
class RayImageGenerator:
    """A generator that each worker has."""

    cluster: OnRay
    pipeline: Pipeline
    places: int
    """Requests of a piece: as many as are drawn together."""

    def identity(self) -> GeneratorIdentity:
        """See `workers.ImageGenerator`."""
        return self._identity

    def draw(self, requests: Sequence[Request]) -> Iterator["Drawn"]:
        """See `workers.ImageGenerator`."""
        pieces = [
            group[start : start + self.places]
            for group in alike(requests)
            for start in range(0, len(group), self.places)
        ]
        asked = [(n, self.pipeline, [requests[index] for index in piece]) for n, piece in enumerate(pieces)]
        for number, drawn in self.cluster.stream(lambda worker, piece: worker.draw.remote(*piece), asked):
            yield from (replace(each, index=pieces[number][each.index]) for each in drawn)

    @cached_property
    def _identity(self) -> GeneratorIdentity:
        """As the first worker says; all are of one kind, or the images of others are drawn again when asked for."""
        (told_identity,) = self.cluster.stream(
            lambda worker, pipeline: worker.identity.remote(pipeline), [self.pipeline]
        )
        identity: GeneratorIdentity = told_identity
        return identity


class Worker:
    """Holds the models of a profile in a process of its own, each from when it is first asked for."""

    def __init__(self, models: Models) -> None:
        self._models, self._held, self._lent = models, ExitStack(), ExitStack()
        self._encoders: dict[str, ImageEncoder] = {}
        self._drawing: tuple[Pipeline, Generator] | None = None

    def ready(self) -> bool:
        """True, as soon as the process is there."""
        return True

    def embed(self, number: int, role: str, piece: Sequence[Picture]) -> tuple[int, NDArray[np.float32] | str]:
        """The number of a piece and its rows, or why a photo could not be opened."""
        if role not in self._encoders:
            lent = self._models.encoder() if role == Role.ENCODER else self._models.judge()
            self._encoders[role] = self._held.enter_context(lent)
        try:
            ((_, rows),) = embed_here(self._encoders[role], [[_found(picture) for picture in piece]])
        except PhotoError as error:
            return number, str(error)
        return number, rows

    def identity(self, pipeline: Pipeline) -> GeneratorIdentity:
        """What names the images that `draw` gives."""
        return self._generator(pipeline).identity()

    def draw(self, number: int, pipeline: Pipeline, requests: Sequence[Request]) -> tuple[int, list["Drawn"]]:
        """The number of a piece and its images."""
        return number, list(self._generator(pipeline).draw(requests))

    def _generator(self, pipeline: Pipeline) -> "Generator":
        """One generator is held at a time."""
        if self._drawing is None or self._drawing[0] != pipeline:
            self._lent.close()
            lent = self._models.generator(_here(pipeline.folder), _here(pipeline.lora))
            self._drawing = pipeline, self._lent.enter_context(lent)
        return self._drawing[1]


def _found(picture: Picture) -> Picture:
    """A picture of which this node has its own copy, where the data root is in object storage: samples lie there."""
    if not is_url(picture.location):
        _here(Path(picture.location))
    return picture


def _here(path: Path | None) -> Path | None:
    """A file or folder of the data root, of which this node fetches what it lacks where that is in object storage."""
    if path is not None and not path.is_file() and path.is_relative_to(root := read_settings().data):
        Files(root).here(path)
    return path
