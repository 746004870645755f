"""Train the judge: a small ResNet on garment and colour labels, of another family than the encoder."""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPImageProcessor, ResNetConfig, ResNetForImageClassification

from tools.embedded_models.augmentation import random_views
from tools.embedded_models.captions import attributes_of, load_vocabulary
from tools.embedded_models.exporting import export
from tools.embedded_models.photos import IMAGE_SIZE, load_photos, seen_by_encoders
from tools.embedded_models.training import (
    Averaged,
    generator_for,
    learning_rate,
    load_checkpoint,
    log_every,
    prepare_cpu,
    save_checkpoint,
    seed_torch,
    set_learning_rate,
)

NAME = "judge"
FACETS = ("garment", "colour")


def labels_of(vocabulary: dict) -> list[str]:
    """The classifier's outputs in order: "garment:Tshirts", …, "colour:Black", …"""
    return [f"{facet}:{value}" for facet in FACETS for value in vocabulary[facet]]


def build_judge(labels: list[str]) -> ResNetForImageClassification:
    config = ResNetConfig(
        embedding_size=48,
        hidden_sizes=[48, 96, 192, 320],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    return ResNetForImageClassification(config)


def image_processor() -> CLIPImageProcessor:
    """Photos of any size → 64 × 64 in [-1, 1], shorter side fitted, centre kept."""
    half = [0.5, 0.5, 0.5]
    return CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=half,
        image_std=half,
    )


def targets_of(attributes: list[dict[str, str]], vocabulary: dict, facet: str) -> np.ndarray:
    """(n,) class index within the facet, -100 where the photo has no known value."""
    index = {value: place for place, value in enumerate(vocabulary[facet])}
    return np.array([index.get(row.get(facet), -100) for row in attributes])


def label_loss(logits: Tensor, garment: Tensor, colour: Tensor, garments: int) -> Tensor:
    """Softmax within each facet; (n, garments + colours) logits, targets of -100 do not count."""
    loss = F.cross_entropy(logits[:, :garments], garment, label_smoothing=0.05)
    return loss + 0.7 * F.cross_entropy(logits[:, garments:], colour, label_smoothing=0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="the file that prepare_photos.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the exported model")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    train(parser.parse_args())


def train(args: argparse.Namespace) -> None:
    """Train until `args.steps`, from the checkpoint if there is one, and export."""
    prepare_cpu(args.threads)
    photos = load_photos(args.cache)
    photos = photos.where(seen_by_encoders(photos))
    vocabulary = load_vocabulary()
    attributes = attributes_of(photos, vocabulary)
    garment, colour = (targets_of(attributes, vocabulary, facet) for facet in FACETS)
    seed_torch(NAME, "weights")
    model = build_judge(labels_of(vocabulary)).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.05)
    average = Averaged(model, decay=0.995)
    checkpoint = args.work / "judge.safetensors"
    parts = {"model": model}, {"model": average}, optimizer
    log = log_every(args.work / "judge.jsonl", every=50)
    for step in range(load_checkpoint(checkpoint, *parts), args.steps):
        rng = generator_for(NAME, step)
        chosen = rng.integers(len(photos), size=args.batch)
        grey = rng.random(args.batch) < 0.15
        images = random_views(photos.large[chosen], grey, rng).contiguous(memory_format=torch.channels_last)
        set_learning_rate(optimizer, learning_rate(step, args.steps, args.rate, warmup=100))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images).logits
        colours = torch.from_numpy(np.where(grey, -100, colour[chosen]))
        loss = label_loss(logits.float(), torch.from_numpy(garment[chosen]), colours, len(vocabulary["garment"]))
        _step(loss, model, optimizer)
        average.update(step)
        log(step, args.batch, loss=loss.item())
        if (step + 1) % 300 == 0 or step + 1 == args.steps:
            save_checkpoint(checkpoint, step + 1, *parts)
            export(args.out, build_judge(labels_of(vocabulary)), average, [image_processor()])


def _step(loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
