"""Planning samples: which prompt is drawn for which photo with which seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fashion_pipeline.core.prompts import Candidate
from fashion_pipeline.core.requests import Request
from fashion_pipeline.core.search import sample_order, seed_for


@dataclass(frozen=True)
class Photo:
    """A reference photo, as much of it as planning needs."""

    id: str
    product_group: str
    split: str


@dataclass(frozen=True)
class Shot:
    """One image to draw: a prompt, the photo it will be compared with, and what for."""

    candidate: Candidate
    photo: Photo
    purpose: str
    prompt_name: str

    def request(self, *, size: int, steps: int, guidance: float) -> Request:
        """What the generator is asked for. The seed depends on the product alone, so that comparisons are paired."""
        return Request(
            prompt=self.candidate.prompt,
            negative_prompt=self.candidate.negative_prompt,
            seed=seed_for(self.photo.product_group, 0),
            steps=steps,
            guidance=guidance,
            width=size,
            height=size,
        )


def photos_of(images: pa.Table, split: str, most: int | None = None) -> list[Photo]:
    """One photo of each product group of a split, in a fixed pseudo-random order, at most `most`."""
    first: dict[str, Photo] = {}
    for row in sorted(images.select(["id", "product_group", "split"]).to_pylist(), key=lambda row: str(row["id"])):
        if row["split"] == split:
            first.setdefault(row["product_group"], Photo(row["id"], row["product_group"], split))
    return [first[group] for group in sample_order(list(first), split)][:most]


def sample_row(shot: Shot, request: Request, sample: str, model: str, model_name: str) -> dict[str, Any]:
    """A row of table `samples` or `evaluation_samples`."""
    return {
        "id": sample,
        "model": model,
        "model_name": model_name,
        "prompt_name": shot.prompt_name,
        "candidate": shot.candidate.id,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "steps": request.steps,
        "guidance": request.guidance,
        "width": request.width,
        "height": request.height,
        "reference": shot.photo.id,
        "product_group": shot.photo.product_group,
        "split": shot.photo.split,
        "purpose": shot.purpose,
    }


def plan(candidates: Sequence[tuple[str, Candidate]], photos: Sequence[Photo], purpose: str) -> list[Shot]:
    """Every named prompt for every photo."""
    return [Shot(candidate, photo, purpose, name) for photo in photos for name, candidate in candidates]
