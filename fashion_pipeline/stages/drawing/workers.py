"""Embedding and drawing in pieces, so that they can be done in this process or spread over many.

What is done to a piece is the same in both cases: what is here. A worker elsewhere opens the photos by itself, and
must find them, and the models, under the same names as this process.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_pipeline.core.features.shuffling import shuffled
from fashion_pipeline.core.prompts.requests import GeneratorIdentity, Request
from fashion_pipeline.intake.photos import PhotoError, open_photo

if TYPE_CHECKING:
    from fashion_pipeline.ml.diffusion import Drawn

AHEAD = 16
"""Images decoded ahead of the encoder."""

Name = TypeVar("Name")
Opened = TypeVar("Opened")


@dataclass(frozen=True)
class Picture:
    """An image to embed."""

    id: str
    """Photo or sample."""
    location: str
    """What `open_photo` takes."""
    side: int
    """Pixels of the longer side at which it is decoded."""
    photo: bool
    """Whether the id is the hash of its bytes, so that a file that was replaced is noticed."""
    shuffled: bool = False
    """Whether it is cut into pieces first, see `core.features.shuffling`."""

    def open(self) -> Image.Image:
        """The image. Raises PhotoError that names the file."""
        try:
            image = open_photo(self.location, self.side, self.id if self.photo else "")
        except PhotoError as error:
            raise PhotoError(f"{self.location}: {error}; or materialise raw_images again to leave it out") from error
        return shuffled(image, self.id) if self.shuffled else image


@dataclass(frozen=True)
class Pipeline:
    """Which generator draws."""

    folder: Path | None = None
    """A complete pipeline; None for the profile's."""
    lora: Path | None = None
    """A LoRA file that is merged in."""


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


class ImageGenerator(Protocol):
    """What draws images: a generator of this process, or those of others."""

    def identity(self) -> GeneratorIdentity:
        """What names the images that `draw` gives now."""
        ...

    def draw(self, requests: Sequence[Request]) -> Iterator["Drawn"]:
        """The images of all requests as they are done, in any order."""
        ...


class Workers(Protocol):
    """Processes elsewhere that hold the models of a profile."""

    def embed(self, role: str, pieces: Sequence[Sequence[Picture]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(number of a piece, the rows of its pictures) as they are done, in any order. Raises PhotoError."""
        ...

    def image_generator(self, pipeline: Pipeline) -> ImageGenerator:
        """What draws there."""
        ...

    def release(self) -> None:
        """Give up devices and memory; whoever asks again gets new processes."""
        ...


def embed_here(encoder: ImageEncoder, pieces: Sequence[Sequence[Picture]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(number of a piece, the rows of its pictures) in order, by an encoder of this process."""
    for number, piece in enumerate(pieces):
        yield number, encoder.embed_images(in_threads(Picture.open, piece))


def in_threads(open_one: Callable[[Name], Opened], names: Iterable[Name]) -> Iterator[Opened]:
    """What a function makes of each name, in order; as many at a time as there are cores, and few ahead of the caller.

    Decoding and scaling give the interpreter up, so that threads are as fast as processes here.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        waiting: deque[Future[Opened]] = deque()
        for name in names:
            waiting.append(pool.submit(open_one, name))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
