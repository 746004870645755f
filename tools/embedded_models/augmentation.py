"""Random views of a photo that keep what it shows: place, size, mirror, light, blur, and colours lost to grey."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tools.embedded_models.photos import IMAGE_SIZE
from tools.embedded_models.training import to_float

GREY = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


def random_views(large: np.ndarray, grey: np.ndarray, rng: np.random.Generator) -> Tensor:
    """(n, 80, 80, 3) uint8 photos, (n,) bool which to show in grey → (n, 3, 64, 64) float32 in [-1, 1]."""
    images = _moved(to_float(large), rng)
    images = torch.where(_flags(grey), (images * GREY).sum(dim=1, keepdim=True), images)
    images = _relit(images, rng)
    return torch.where(_flags(rng.random(len(large)) < 0.2), _blurred(images), images).contiguous()


def _moved(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Zoom by 0.7 to 1.15, turn by up to 8 degrees, shift by up to 12 %, mirror half; white beyond the edge."""
    n = len(images)
    zoom, angle = rng.uniform(0.7, 1.15, n), rng.normal(0, 0.05, n).clip(-0.14, 0.14)
    stretch, mirror = rng.uniform(0.9, 1.1, n), rng.choice((-1.0, 1.0), n)
    room = np.maximum(0.12, 1 - zoom)
    theta = np.zeros((n, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = zoom * np.cos(angle) * mirror * stretch, -zoom * np.sin(angle)
    theta[:, 1, 0], theta[:, 1, 1] = zoom * np.sin(angle) * mirror, zoom * np.cos(angle) / stretch
    theta[:, :, 2] = rng.uniform(-1, 1, (n, 2)) * room[:, None]
    grid = F.affine_grid(torch.from_numpy(theta), [n, 3, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    return F.grid_sample(images - 1, grid, padding_mode="zeros", align_corners=False) + 1


def _relit(images: Tensor, rng: np.random.Generator) -> Tensor:
    """A little more or less contrast and brightness; hues stay."""
    n = len(images)
    contrast, brightness = (_column(values) for values in (rng.uniform(0.85, 1.15, n), rng.normal(0, 0.06, n)))
    return ((images - 1) * contrast + 1 + brightness).clamp(-1, 1)


def _blurred(images: Tensor) -> Tensor:
    return F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear", align_corners=False)


def _column(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).view(-1, 1, 1, 1)


def _flags(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).view(-1, 1, 1, 1)
