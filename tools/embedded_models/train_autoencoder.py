"""Train the generator's AutoencoderKL: random crops at first, then whole photos; colours and prints must survive."""

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from tools.embedded_models.photos import IMAGE_SIZE, Photos, load_photos, seen_by_generator
from tools.embedded_models.training import (
    Averaged,
    generator_for,
    learning_rate,
    load_checkpoint,
    log_every,
    prepare_cpu,
    save_checkpoint,
    save_grid,
    seed_torch,
    set_learning_rate,
    to_bytes,
    to_float,
)

NAME = "autoencoder"
CROP = 32
DIVERGENCE_WEIGHT = 1e-3
# Rows turn red, green, blue into brightness and two colour differences; the latter count double.
TO_OPPONENT = torch.tensor([[0.299, 0.587, 0.114], [-0.338, -0.662, 1.0], [1.0, -0.838, -0.162]])


def build_autoencoder() -> AutoencoderKL:
    """Factor 4: 64 × 64 pixels become 16 × 16 latents of 4 channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 48, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        mid_block_add_attention=False,
    )


def load_averaged(checkpoint: Path) -> AutoencoderKL:
    """The autoencoder with the averaged weights of a checkpoint, for use rather than training."""
    model = build_autoencoder()
    with safe_open(checkpoint, "pt") as stored:
        model.load_state_dict({key: stored.get_tensor(f"average/model/{key}") for key in model.state_dict()})
    return model.eval().requires_grad_(False)


def draw_batch(photos: Photos, size: int, batch: int, rng: np.random.Generator) -> np.ndarray:
    """(batch, size, size, 3) uint8: crops around something that is not white ground; a third with other colours."""
    crops = np.empty((batch, size, size, 3), np.uint8)
    for place, index in enumerate(rng.integers(len(photos), size=batch)):
        image = photos.small[index] if size == IMAGE_SIZE or rng.random() < 0.7 else photos.large[index]
        crops[place] = augment(crop_to_content(image, size, rng), rng)
    return crops


def crop_to_content(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A (size, size, 3) window of `image` near one of its pixels that is not white."""
    room = len(image) - size
    if room == 0:
        return image
    rows, columns = np.nonzero(image.min(axis=2) < 235)
    pick = rng.integers(len(rows)) if len(rows) else 0
    centre = (rows[pick], columns[pick]) if len(rows) else (len(image) // 2, len(image) // 2)
    top, left = (int(np.clip(c - size // 2 + rng.integers(-8, 9), 0, room)) for c in centre)
    return image[top : top + size, left : left + size]


def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror half of the images and swap the colour channels of a third, so that rare hues are learnt too."""
    if rng.random() < 0.5:
        image = image[:, ::-1]
    return image[:, :, rng.permutation(3)] if rng.random() < 0.33 else image


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 on brightness and colour differences, and on their gradients at two scales; (n, 3, h, w) in [-1, 1]."""
    difference = torch.einsum("ij,njhw->nihw", TO_OPPONENT, output - target)
    loss = difference.abs().mean()
    for scale in (1, 2):
        if scale > 1:
            difference = F.avg_pool2d(difference, scale)
        loss = loss + 0.5 * (difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean())
    coarse = F.avg_pool2d(difference, 4)
    return loss + coarse.abs().mean()


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """Mean KL divergence from the unit Gaussian, nats a latent value."""
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()


def show(model: AutoencoderKL, average: Averaged, photos: Photos, path: Path) -> None:
    """Originals above reconstructions by the averaged weights, 16 photos, for looking at while training."""
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(average.shadow)
    chosen = photos.small[:: max(1, len(photos) // 32)][:32]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model.decode(model.encode(to_float(chosen)).latent_dist.mode()).sample
    model.load_state_dict(trained)
    made = to_bytes(output)
    rows = [part for start in (0, 16) for part in (chosen[start : start + 16], made[start : start + 16])]
    save_grid(path, np.concatenate(rows), columns=16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="the file that prepare_photos.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints, logs and sample pictures")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--whole-from", type=int, default=4500, help="the step from which on whole photos are shown")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--freeze-encoder", action="store_true", help="train the decoder only: latents stay valid")
    train(parser.parse_args())


def train(args: argparse.Namespace) -> None:
    """Train until `args.steps`, from the checkpoint if there is one."""
    prepare_cpu(args.threads)
    photos = load_photos(args.cache)
    photos = photos.where(seen_by_generator(photos))
    seed_torch(NAME, "weights")
    model = build_autoencoder().to(memory_format=torch.channels_last)
    if args.freeze_encoder:
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=1e-4)
    average = Averaged(model, decay=0.998)
    checkpoint = args.work / "autoencoder.safetensors"
    parts = {"model": model}, {"model": average}, optimizer
    first = load_checkpoint(checkpoint, *parts)
    log = log_every(args.work / "autoencoder.jsonl", every=50)
    for step in range(first, args.steps):
        size, batch = (CROP, args.batch) if step < args.whole_from else (IMAGE_SIZE, args.batch // 4)
        set_learning_rate(optimizer, learning_rate(step, args.steps, args.rate, warmup=100))
        seed_torch(NAME, step)
        target = to_float(draw_batch(photos, size, batch, generator_for(NAME, step)))
        with torch.autocast("cpu", torch.bfloat16):
            latent = model.encode(target).latent_dist
            output = model.decode(latent.sample()).sample
        loss = reconstruction_loss(output.float(), target)
        spread = divergence(latent.mean.float(), latent.logvar.float())
        (loss + DIVERGENCE_WEIGHT * spread).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(step)
        log(step, batch, loss=loss.item(), divergence=spread.item())
        if (step + 1) % 500 == 0 or step + 1 == args.steps:
            save_checkpoint(checkpoint, step + 1, *parts)
            show(model, average, photos, args.work / "autoencoder.png")


if __name__ == "__main__":
    main()
