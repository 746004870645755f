"""Planning samples: which prompt is drawn for which photo with which seed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fashion_pipeline.core.prompts.formats import Candidate
from fashion_pipeline.core.prompts.requests import Drawing, Request
from fashion_pipeline.core.prompts.search import sample_order, seed_for
from fashion_pipeline.core.rows import Photo, Sample


@dataclass(frozen=True)
class Shot:
    """One image to draw: a prompt, the photo it will be compared with, and what for."""

    candidate: Candidate
    photo: Photo
    purpose: str
    prompt_name: str
    repeat: int = 0

    def request(self, drawing: Drawing) -> Request:
        """What the generator is asked for. The seed depends on product and repeat alone: comparisons are paired."""
        return Request(
            prompt=self.candidate.prompt,
            negative_prompt=self.candidate.negative_prompt,
            seed=seed_for(self.photo.product_group, self.repeat),
            steps=drawing.steps,
            guidance=drawing.guidance if self.candidate.guidance is None else self.candidate.guidance,
            width=drawing.image_size,
            height=drawing.image_size,
        )


def photos_of(photos: Iterable[Photo], split: str, most: int | None = None) -> list[Photo]:
    """One photo of each product group of a split, in a fixed pseudo-random order, at most `most`."""
    first: dict[str, Photo] = {}
    for photo in sorted(photos, key=lambda photo: photo.id):
        if photo.split == split:
            first.setdefault(photo.product_group, photo)
    return [first[group] for group in sample_order(list(first), split)][:most]


def sample_of(shot: Shot, request: Request, sample: str, model: str, model_name: str) -> Sample:
    """The row of a sample that was drawn."""
    return Sample(
        id=sample,
        model=model,
        model_name=model_name,
        prompt_name=shot.prompt_name,
        candidate=shot.candidate.id,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        steps=request.steps,
        guidance=request.guidance,
        width=request.width,
        height=request.height,
        reference=shot.photo.id,
        product_group=shot.photo.product_group,
        split=shot.photo.split,
        purpose=shot.purpose,
    )


def plan(candidates: Sequence[tuple[str, Candidate]], photos: Sequence[Photo], purpose: str) -> list[Shot]:
    """Every named prompt for every photo."""
    return [Shot(candidate, photo, purpose, name) for photo in photos for name, candidate in candidates]
