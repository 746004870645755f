"""The data of a training: what is encoded once, and which of it each step sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.training.caching import Encoder
from fashion_pipeline.ml.training.objective import Batch, held_out_batches, random_for, sample_latents
from fashion_pipeline.ml.training.results import TrainingPair


@dataclass(frozen=True)
class TrainingData:
    """Everything that training looks at, encoded, on the CPU."""

    views: list[list[torch.Tensor]]
    """For each pair its views, each (2c, h, w) means and log variances."""
    texts: list[torch.Tensor]
    """For each pair its (tokens, d) caption."""
    no_text: torch.Tensor
    """(tokens, d) of the empty caption."""
    held_out: list[Batch]
    scaling: float
    """What latents are multiplied by before the UNet sees them."""
    timesteps: int
    """Of the noise schedule."""

    def batch(self, config: Recipe, step: int) -> Batch:
        """The data of a step: each epoch is a permutation of the pairs; view, dropout and noise are the step's own."""
        random = random_for("step", config.seed, step)
        first = step * config.batch_size
        pairs = [self._pair(config.seed, position) for position in range(first, first + config.batch_size)]
        mirrored, dropped = torch.rand((2, config.batch_size), generator=random)
        moments = [self.views[p][int(m * len(self.views[p]))] for p, m in zip(pairs, mirrored.tolist(), strict=True)]
        kept = [bool(d >= config.caption_dropout) for d in dropped]
        texts = [self.texts[pair] if keep else self.no_text for pair, keep in zip(pairs, kept, strict=True)]
        latents = sample_latents(torch.stack(moments), self.scaling, random)
        timesteps = torch.randint(0, self.timesteps, (config.batch_size,), generator=random)
        return Batch(latents, torch.randn(latents.shape, generator=random), timesteps, torch.stack(texts))

    def _pair(self, seed: int, position: int) -> int:
        epoch, place = divmod(position, len(self.views))
        return _order(seed, epoch, len(self.views))[place]


def encode_data(
    pipeline: Any,
    pairs: Sequence[TrainingPair],
    held_out: Sequence[TrainingPair],
    config: Recipe,
    encoder: Encoder,
) -> TrainingData:
    """Encode all images and captions, or take them from the cache. Raises TrainingError for one that cannot be used."""
    texts = encoder.captions([*(pair.caption for pair in (*pairs, *held_out)), ""])
    unseen = encoder.images([pair.path for pair in held_out], flip=False)
    scaling = float(pipeline.vae.config.scaling_factor)
    timesteps = int(pipeline.scheduler.config.num_train_timesteps)
    means = [views[0] for views in unseen]
    unseen_texts = [texts[pair.caption] for pair in held_out]
    return TrainingData(
        views=encoder.images([pair.path for pair in pairs], flip=config.horizontal_flip),
        texts=[texts[pair.caption] for pair in pairs],
        no_text=texts[""],
        held_out=held_out_batches(means, unseen_texts, timesteps, scaling, config.batch_size),
        scaling=scaling,
        timesteps=timesteps,
    )


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    """The permutation of an epoch."""
    return torch.randperm(count, generator=random_for("epoch", seed, epoch)).tolist()
