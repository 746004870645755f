"""What training minimises and what the held-out loss measures; all randomness is derived from names."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling

from fashion_pipeline.ml.families import Family, Texts

Normalised = Callable[[torch.Tensor], torch.Tensor]
"""Latents of an autoencoder → as its denoiser knows them."""

HELD_OUT_DRAWS = 4
"""Timesteps at which each held-out image is measured."""


def random_for(*names: object) -> torch.Generator:
    """A generator whose state is a pure function of the names."""
    digest = hashlib.sha256("\0".join(map(str, names)).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes."""

    latents: torch.Tensor
    """(n, c, h, w), normalised as the denoiser expects."""
    noise: torch.Tensor
    """(n, c, h, w) standard normal."""
    timesteps: torch.Tensor
    """(n,) int64 places in the schedule."""
    texts: Texts
    """What the denoiser is told; what the text encoders read where they learn."""
    weight: float = 1.0
    """Of its loss in that of the step."""

    def to(self, device: str) -> "Batch":
        """The same on a device; the copy to a GPU goes on while other work does."""
        return self._each(lambda part: _moved(part, device))

    def rows(self, start: int, stride: int) -> "Batch":
        """Every `stride`-th row from `start` on: the share of one process."""
        return self._each(lambda part: part[start::stride])

    def slice(self, start: int, end: int) -> "Batch":
        """Rows in a row."""
        return self._each(lambda part: part[start:end])

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        latents, noise, timesteps = map(change, (self.latents, self.noise, self.timesteps))
        texts = {name: change(tensor) for name, tensor in self.texts.items()}
        return Batch(latents, noise, timesteps, texts, self.weight)


def _moved(tensor: torch.Tensor, device: str) -> torch.Tensor:
    if not device.startswith("cuda"):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def sample_latents(moments: torch.Tensor, normalised: Normalised, random: torch.Generator) -> torch.Tensor:
    """(n, 2c, h, w) means and log variances → (n, c, h, w) normalised draws from the autoencoder's posterior."""
    mean, log_variance = moments.chunk(2, dim=1)
    deviation = (0.5 * log_variance.clamp(-30.0, 20.0)).exp()
    return normalised(mean + deviation * torch.randn(mean.shape, generator=random))


class Objective(ABC):
    """What a denoiser is taught: how noise is added at a place of the schedule, and what is to be predicted."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.total = int(scheduler.config.num_train_timesteps)
        """Places of the schedule."""

    @abstractmethod
    def draw(self, size: int, random: torch.Generator) -> torch.Tensor:
        """(size,) int64 places to train at."""

    @abstractmethod
    def noisy(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, c, h, w) noisy latents of a batch, and (n,) what the denoiser is told of its places."""

    @abstractmethod
    def target(self, batch: Batch) -> torch.Tensor:
        """(n, c, h, w) what the denoiser should predict."""

    @abstractmethod
    def weights(self, places: torch.Tensor, gamma: float) -> torch.Tensor:
        """(n,) weights of the errors at some places; `gamma` is the recipe's `min_snr_gamma`."""


class Diffusion(Objective):
    """Noise, or v (Salimans & Ho, 2022), at timesteps that are all drawn as often (Ho et al., 2020)."""

    def __init__(self, scheduler: Any) -> None:
        """From the scheduler of a sampler: some samplers (Euler) add noise on another scale than training needs.

        Raises ValueError for a base that predicts anything else.
        """
        super().__init__(DDPMScheduler.from_config(scheduler.config))
        self._kind = self.scheduler.config.prediction_type
        if self._kind not in ("epsilon", "v_prediction"):
            raise ValueError(f"the base predicts {self._kind!r}; fine-tuning knows epsilon and v_prediction")

    def draw(self, size: int, random: torch.Generator) -> torch.Tensor:
        """Uniform."""
        return torch.randint(0, self.total, (size,), generator=random)

    def noisy(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and noise by the schedule's variances; the denoiser is told the timesteps."""
        return self.scheduler.add_noise(batch.latents, batch.noise, batch.timesteps), batch.timesteps

    def target(self, batch: Batch) -> torch.Tensor:
        """As the base's scheduler says."""
        if self._kind == "epsilon":
            return batch.noise
        return self.scheduler.get_velocity(batch.latents, batch.noise, batch.timesteps)  # type: ignore[no-any-return]

    def weights(self, places: torch.Tensor, gamma: float) -> torch.Tensor:
        """By the signal-to-noise ratio."""
        return min_snr_weights(self.scheduler, places, gamma)


class FlowMatching(Objective):
    """The velocity from latents to noise on straight lines between them (Lipman et al., 2023; Liu et al., 2023).

    Places are drawn from a logit-normal distribution, and moved towards noise by the shift of the base's scheduler,
    as Stable Diffusion 3 was trained (Esser et al., 2024, sections 3.1 and 5.3.2); all weigh the same.
    """

    def __init__(self, scheduler: Any) -> None:
        super().__init__(FlowMatchEulerDiscreteScheduler.from_config(scheduler.config))

    def draw(self, size: int, random: torch.Generator) -> torch.Tensor:
        """Most in the middle."""
        shares = compute_density_for_timestep_sampling("logit_normal", size, 0.0, 1.0, generator=random)
        places: torch.Tensor = (shares * self.total).long().clamp(max=self.total - 1)
        return places

    def noisy(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """A share of noise that falls from place to place; the denoiser is told a thousand times that share."""
        share = self.scheduler.sigmas.to(batch.latents)[batch.timesteps][:, None, None, None]
        told = self.scheduler.timesteps.to(batch.latents)[batch.timesteps]
        return (1 - share) * batch.latents + share * batch.noise, told

    def target(self, batch: Batch) -> torch.Tensor:
        """Noise less latents."""
        return batch.noise - batch.latents

    def weights(self, places: torch.Tensor, gamma: float) -> torch.Tensor:
        """Ones."""
        return torch.ones(places.shape, device=places.device)


def objective_of(scheduler: Any) -> Objective:
    """What a base is taught, by the scheduler that it draws with."""
    flows = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    return FlowMatching(scheduler) if flows else Diffusion(scheduler)


def squared_errors(
    family: Family, denoiser: Any, text_encoders: Mapping[str, Any], objective: Objective, batch: Batch
) -> torch.Tensor:
    """(n,) mean squared error of each item's prediction of what the objective asks for.

    `text_encoders` read the batch's token ids; there are none where it holds embeddings.
    """
    texts = family.embed_ids(text_encoders, batch.texts) if text_encoders else batch.texts
    noisy, told = objective.noisy(batch)
    predicted = family.predict(denoiser, noisy, told, texts).float()
    errors: torch.Tensor = (predicted - objective.target(batch)).square().mean(dim=(1, 2, 3))
    return errors


def min_snr_weights(scheduler: Any, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """(n,) weights of Hang et al. (2023), min(SNR, gamma) / SNR for noise, / (SNR + 1) for v; ones for gamma 0."""
    if not gamma:
        return torch.ones(timesteps.shape, device=timesteps.device)
    kept: torch.Tensor = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    ratio = kept / (1 - kept)
    below = ratio + 1 if scheduler.config.prediction_type == "v_prediction" else ratio.clamp(min=1e-8)
    return ratio.clamp(min=1e-8, max=gamma) / below


def held_out_batches(
    moments: Sequence[torch.Tensor], texts: Sequence[Texts], total: int, normalised: Normalised, size: int
) -> list[Batch]:
    """Images of one shape, each at several timesteps stratified over all `total`; the same noise at every call."""
    count = len(moments) * HELD_OUT_DRAWS
    if not count:
        return []
    strata = ((torch.arange(count) + 0.5) / count * total).long()
    timesteps = strata[torch.randperm(count, generator=random_for("held-out order", count))]
    means = normalised(torch.cat([torch.stack([m.chunk(2)[0] for m in moments])] * HELD_OUT_DRAWS))
    noise = torch.randn(means.shape, generator=random_for("held-out noise"))
    told = {name: torch.cat([torch.stack([text[name] for text in texts])] * HELD_OUT_DRAWS) for name in texts[0]}
    whole = Batch(means, noise, timesteps, told)
    return [whole.slice(start, start + size) for start in range(0, count, size)]
