"""What a generator learns from: latents of photos, and captions written anew for each step."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from tools.embedded_models.captions import compose
from tools.embedded_models.photos import Photos
from tools.embedded_models.training import to_float

CHANCE = {"garment": 0.95, "colour": 0.85, "audience": 0.4, "season": 0.15, "usage": 0.3}
DROPPED = 0.1


@dataclass(frozen=True)
class Latents:
    """Means and standard deviations (2, n, 4, 16, 16) float32 of every photo as it is and mirrored, and their scale."""

    mean: Tensor
    std: Tensor
    scale: float


def encode_photos(autoencoder: AutoencoderKL, photos: Photos) -> Latents:
    """Run every photo and its mirror image through the autoencoder; the scale makes latents of unit deviation."""
    means, stds = [], []
    for pixels in (photos.small, photos.small[:, :, ::-1]):
        chunks = [_encode(autoencoder, pixels[start : start + 128].copy()) for start in range(0, len(pixels), 128)]
        means.append(torch.cat([mean for mean, _ in chunks]))
        stds.append(torch.cat([std for _, std in chunks]))
    mean, std = torch.stack(means), torch.stack(stds)
    return Latents(mean, std, 1 / float(mean.std()))


@torch.no_grad()
def _encode(autoencoder: AutoencoderKL, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
    latent = autoencoder.encode(to_float(pixels)).latent_dist
    return latent.mean.contiguous(), latent.std.contiguous()


def cached_latents(path: Path, autoencoder: AutoencoderKL, photos: Photos) -> Latents:
    """Latents from `path`, computed and written there if it does not exist."""
    if not path.is_file():
        latents = encode_photos(autoencoder, photos)
        np.savez(path, mean=latents.mean.numpy(), std=latents.std.numpy(), scale=latents.scale)
    with np.load(path, allow_pickle=False) as stored:
        return Latents(torch.from_numpy(stored["mean"]), torch.from_numpy(stored["std"]), float(stored["scale"]))


def sampling_weights(photos: Photos) -> np.ndarray:
    """(n,) probabilities: rare garments are shown more often than they occur, common ones still most."""
    _, inverse, counts = np.unique(photos.columns["articleType"], return_inverse=True, return_counts=True)
    weights = counts[inverse] ** -0.4
    return weights / weights.sum()


def write_captions(attributes: list[dict[str, str]], vocabulary: dict, rng: np.random.Generator) -> list[str]:
    """One caption a photo, one in ten empty, one in thirty two joined."""
    texts = []
    for row in attributes:
        parts = [compose(row, vocabulary, rng, CHANCE).text for _ in range(2 if rng.random() < 0.03 else 1)]
        texts.append("" if rng.random() < DROPPED else ", ".join(parts))
    return texts


def draw_latents(latents: Latents, chosen: np.ndarray, rng: np.random.Generator) -> Tensor:
    """(batch, 4, 16, 16) scaled latents of the chosen photos, half of them mirrored, drawn from their distributions."""
    mirrored = torch.from_numpy(rng.integers(0, 2, len(chosen)))
    places = torch.from_numpy(chosen)
    mean, std = latents.mean[mirrored, places], latents.std[mirrored, places]
    return latents.scale * (mean + std * torch.randn_like(mean))
