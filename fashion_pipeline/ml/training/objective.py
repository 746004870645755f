"""What training minimises and what the held-out loss measures; all randomness is derived from names."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler

HELD_OUT_DRAWS = 4
"""Timesteps at which each held-out image is measured."""


def random_for(*names: object) -> torch.Generator:
    """A generator whose state is a pure function of the names."""
    digest = hashlib.sha256("\0".join(map(str, names)).encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def training_scheduler(scheduler: Any) -> Any:
    """The noise schedule of a sampler as training needs it: some samplers (Euler) add noise on another scale."""
    return DDPMScheduler.from_config(scheduler.config)


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes."""

    latents: torch.Tensor
    """(n, c, h, w), scaled as the UNet expects."""
    noise: torch.Tensor
    """(n, c, h, w) standard normal."""
    timesteps: torch.Tensor
    """(n,) int64."""
    texts: torch.Tensor
    """(n, tokens, d) embeddings; (n, tokens) int64 token ids where the text encoder learns."""
    weight: float = 1.0
    """Of its loss in that of the step."""

    def to(self, device: str) -> "Batch":
        """The same on a device; the copy to a GPU goes on while other work does."""
        return self._each(lambda part: _moved(part, device))

    def rows(self, start: int, stride: int) -> "Batch":
        """Every `stride`-th row from `start` on: the share of one process."""
        return self._each(lambda part: part[start::stride])

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        latents, noise, timesteps, texts = map(change, (self.latents, self.noise, self.timesteps, self.texts))
        return Batch(latents, noise, timesteps, texts, self.weight)


def _moved(tensor: torch.Tensor, device: str) -> torch.Tensor:
    if not device.startswith("cuda"):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def sample_latents(moments: torch.Tensor, scaling: float, random: torch.Generator) -> torch.Tensor:
    """(n, 2c, h, w) means and log variances → (n, c, h, w) scaled draws from the autoencoder's posterior."""
    mean, log_variance = moments.chunk(2, dim=1)
    deviation = (0.5 * log_variance.clamp(-30.0, 20.0)).exp()
    return (mean + deviation * torch.randn(mean.shape, generator=random)) * scaling


def squared_errors(unet: Any, text_encoder: Any, scheduler: Any, batch: Batch) -> torch.Tensor:
    """(n,) mean squared error of each item's prediction, of the noise or of v, as the scheduler says.

    `text_encoder` reads the batch's token ids; it is not needed for a batch of embeddings.
    """
    texts = batch.texts if batch.texts.is_floating_point() else text_encoder(batch.texts)[0]
    noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    predicted = unet(noisy, batch.timesteps, encoder_hidden_states=texts, return_dict=False)[0].float()
    errors: torch.Tensor = (predicted - _target(scheduler, batch)).square().mean(dim=(1, 2, 3))
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
    moments: Sequence[torch.Tensor], texts: Sequence[torch.Tensor], total: int, scaling: float, size: int
) -> list[Batch]:
    """Images of one shape, each at several timesteps stratified over all `total`; the same noise at every call."""
    count = len(moments) * HELD_OUT_DRAWS
    if not count:
        return []
    strata = ((torch.arange(count) + 0.5) / count * total).long()
    timesteps = strata[torch.randperm(count, generator=random_for("held-out order", count))]
    means = torch.cat([torch.stack([m.chunk(2)[0] for m in moments])] * HELD_OUT_DRAWS) * scaling
    noise = torch.randn(means.shape, generator=random_for("held-out noise"))
    embedded = torch.cat([torch.stack(list(texts))] * HELD_OUT_DRAWS)
    return [
        Batch(means[s : s + size], noise[s : s + size], timesteps[s : s + size], embedded[s : s + size])
        for s in range(0, count, size)
    ]


def _target(scheduler: Any, batch: Batch) -> torch.Tensor:
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return batch.noise
    if kind == "v_prediction":
        return scheduler.get_velocity(batch.latents, batch.noise, batch.timesteps)  # type: ignore[no-any-return]
    raise ValueError(f"the base predicts {kind!r}; fine-tuning knows epsilon and v_prediction")
