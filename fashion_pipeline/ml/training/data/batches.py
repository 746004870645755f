"""The data of a training: what is encoded once, and which of it each step sees."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.core.training.tags import variants
from fashion_pipeline.ml.families import Texts
from fashion_pipeline.ml.training.data.caching import Encoder, Tensor, TextTensors, loaded, stacked
from fashion_pipeline.ml.training.objective import (
    Batch,
    Normalised,
    Objective,
    held_out_batches,
    objective_of,
    random_for,
    sample_latents,
)
from fashion_pipeline.ml.training.results import TrainingJob, TrainingPair


@dataclass(frozen=True)
class TrainingData:
    """Everything that training looks at, encoded: on disk, or on the CPU."""

    views: Sequence[Sequence[Tensor]]
    """For each pair its views, each (2c, h, w) means and log variances."""
    texts: Sequence[Sequence[TextTensors]]
    """For each pair the variants of its caption."""
    no_text: TextTensors
    """The empty caption."""
    held_out: list[Batch]
    normalised: Normalised
    """What the denoiser sees of latents."""
    objective: Objective
    """What is taught, and where in the schedule."""
    prior: list[torch.Tensor] = field(default_factory=list)
    """(c, h, w) normalised latents of images that the original drew."""
    prior_text: TextTensors | None = None

    def step(self, recipe: Recipe, step: int) -> list[Batch]:
        """The batches of an optimizer step; the gradient of the sum of their weighted losses is what it goes by."""
        count = recipe.gradient_accumulation
        numbers = range(step * count, (step + 1) * count)
        batches = [self.batch(recipe, number, 1 / count) for number in numbers]
        if self.prior:
            batches += [self._prior_batch(recipe, number, recipe.prior_weight / count) for number in numbers]
        return batches

    def batch(self, recipe: Recipe, number: int, weight: float = 1.0) -> Batch:
        """The batch of a number: each epoch is a permutation of the pairs; all else is the number's own.

        All of a batch have one shape; the shapes take turns by how many pairs have them.
        """
        random = random_for("step", recipe.seed, number)
        size = recipe.batch_size
        shape, before = self._turns.at(number)
        first = before * size
        pairs = [self._pair(recipe.seed, shape, position) for position in range(first, first + size)]
        mirrored, dropped = torch.rand((2, size), generator=random)
        moments = [self.views[p][int(m * len(self.views[p]))] for p, m in zip(pairs, mirrored.tolist(), strict=True)]
        kept = [bool(d >= recipe.caption_dropout) for d in dropped]
        latents = sample_latents(torch.stack([loaded(each) for each in moments]), self.normalised, random)
        timesteps = self.objective.draw(size, random)
        noise = _noise(latents, recipe.noise_offset, random)
        chosen_texts = [
            int(t * len(self.texts[p])) for p, t in zip(pairs, torch.rand(size, generator=random), strict=True)
        ]
        texts = [
            self.texts[p][t] if keep else self.no_text for p, t, keep in zip(pairs, chosen_texts, kept, strict=True)
        ]
        return Batch(latents, noise, timesteps, stacked(texts), weight)

    def _prior_batch(self, recipe: Recipe, number: int, weight: float) -> Batch:
        random = random_for("prior", recipe.seed, number)
        assert self.prior_text is not None
        size = recipe.batch_size
        chosen = torch.randint(0, len(self.prior), (size,), generator=random).tolist()
        latents = torch.stack([self.prior[index] for index in chosen])
        timesteps = self.objective.draw(size, random)
        noise = _noise(latents, recipe.noise_offset, random)
        return Batch(latents, noise, timesteps, stacked([self.prior_text] * size), weight)

    @cached_property
    def _shapes(self) -> list[list[int]]:
        """The pairs of each shape, by index."""
        return _by_shape([views[0] for views in self.views])

    @cached_property
    def _turns(self) -> "_Turns":
        return _Turns([len(pairs) for pairs in self._shapes])

    def _pair(self, seed: int, shape: int, position: int) -> int:
        pairs = self._shapes[shape]
        epoch, place = divmod(position, len(pairs))
        return pairs[_order(seed, shape, epoch, len(pairs))[place]]


class _Turns:
    """Which shape each batch has: the shapes take turns as evenly as their sizes allow."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._given = [0] * len(sizes)
        self._turns: list[tuple[int, int]] = []

    def at(self, number: int) -> tuple[int, int]:
        """The shape of a batch, and how many batches of that shape there are before it."""
        while len(self._turns) <= number:
            owed = [
                size * (len(self._turns) + 1) - given * sum(self._sizes)
                for size, given in zip(self._sizes, self._given, strict=True)
            ]
            shape = owed.index(max(owed))
            self._turns.append((shape, self._given[shape]))
            self._given[shape] += 1
        return self._turns[number]


def encode_data(pipeline: Any, job: TrainingJob, encoder: Encoder) -> TrainingData:
    """Encode all images and captions, or take them from the cache. Raises TrainingError for one that cannot be used."""
    recipe = job.recipe
    variants = [_variants(pair, recipe) for pair in job.pairs]
    held_out = [pair.caption for pair in job.held_out]
    texts = encoder.captions([*(text for each in variants for text in each), *held_out, "", recipe.prior_prompt])
    unseen = [loaded(views[0]) for views in encoder.images([pair.path for pair in job.held_out], flip=False)]
    normalised = encoder.family.normalised
    objective = objective_of(pipeline.scheduler)
    return TrainingData(
        views=encoder.images([pair.path for pair in job.pairs], flip=recipe.horizontal_flip),
        texts=[[texts[text] for text in each] for each in variants],
        no_text=_in_memory(texts[""]),
        held_out=[
            batch
            for same in _by_shape(unseen)
            for batch in held_out_batches(
                [unseen[i] for i in same],
                [_in_memory(texts[held_out[i]]) for i in same],
                objective.total,
                normalised,
                recipe.batch_size,
            )
        ],
        normalised=normalised,
        objective=objective,
        prior=encoder.prior(job.drawing),
        prior_text=_in_memory(texts[recipe.prior_prompt]),
    )


def _in_memory(text: TextTensors) -> Texts:
    return {name: loaded(tensor) for name, tensor in text.items()}


def _variants(pair: TrainingPair, recipe: Recipe) -> list[str]:
    return variants(
        pair.caption,
        recipe.caption_variants,
        dropout=recipe.tag_dropout,
        shuffle=recipe.tag_shuffle,
        seed=recipe.seed,
    )


def _by_shape(tensors: Sequence[Tensor]) -> list[list[int]]:
    """The indices of the tensors of each shape, the shape of the first one first."""
    places: defaultdict[torch.Size, list[int]] = defaultdict(list)
    for index, tensor in enumerate(tensors):
        places[tensor.shape].append(index)
    return list(places.values())


def _noise(latents: torch.Tensor, offset: float, random: torch.Generator) -> torch.Tensor:
    """Standard normal noise, with each channel of each image shifted by `offset` times a normal number (Guttenberg)."""
    noise = torch.randn(latents.shape, generator=random)
    return noise + offset * torch.randn((*latents.shape[:2], 1, 1), generator=random) if offset else noise


@lru_cache(maxsize=16)
def _order(seed: int, shape: int, epoch: int, count: int) -> list[int]:
    """The permutation of an epoch of one shape."""
    return torch.randperm(count, generator=random_for("epoch", seed, shape, epoch)).tolist()
