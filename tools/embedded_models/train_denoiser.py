"""Train a generator's denoiser and text encoders together on cached latents, and export the whole pipeline."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import CLIPTokenizer

from fashion_pipeline.settings import PACKAGE
from tools.embedded_models.bases import Base, open_base
from tools.embedded_models.captions import attributes_of, load_vocabulary, without_reserved
from tools.embedded_models.exporting import replace_folder
from tools.embedded_models.photos import load_photos, seen_by_generator
from tools.embedded_models.samples import cached_latents, draw_latents, sampling_weights, write_captions
from tools.embedded_models.tokenization import corpus, kept_tokenizer
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
)

GENERATOR = PACKAGE / "embedded" / "generator"
SHOWN = [
    f"a photo of {garment}"
    for garment in (
        "a black t-shirt",
        "a blue shirt",
        "a white casual shoe",
        "a red top",
        "a grey sports shoe",
        "a black watch",
        "a brown handbag",
        "a red high heels",
        "black sunglasses",
        "a grey sweater",
        "a black wallet",
        "blue flip flops",
        "a green t-shirt",
        "blue jeans",
        "a black jacket",
        "a purple dress",
        "a brown belt",
        "a red cap",
        "white socks",
        "a blue tie",
        "black trousers",
        "a pink handbag",
        "an orange t-shirt",
        "a backpack",
    )
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", choices=("unet", "flow"), default="unet", help="what to train: bases.py")
    parser.add_argument("--cache", type=Path, required=True, help="the file that prepare_photos.py wrote")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of checkpoints (the autoencoder's too), logs, pictures"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the exported pipeline")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--threads", type=int, default=2)
    train(parser.parse_args())


def train(args: argparse.Namespace) -> None:
    """Train until `args.steps`, from the checkpoint if there is one; export every 400 steps."""
    prepare_cpu(args.threads)
    photos = load_photos(args.cache)
    photos = photos.where(seen_by_generator(photos))
    vocabulary = without_reserved(load_vocabulary())
    attributes, weights = attributes_of(photos, vocabulary), sampling_weights(photos)
    base = open_base(args.base, args.work, _tokenizer(args, lambda: corpus(photos, vocabulary)), GENERATOR)
    latents = cached_latents(args.work / "latents.npz", base.autoencoder, photos)
    everything = nn.ModuleDict(base.modules).train()
    optimizer = torch.optim.AdamW(everything.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0.01)
    averages = {name: Averaged(module, decay=0.998) for name, module in base.modules.items()}
    checkpoint = args.work / f"{base.name}.safetensors"
    log = log_every(args.work / f"{base.name}.jsonl", every=50)
    for step in range(load_checkpoint(checkpoint, base.modules, averages, optimizer), args.steps):
        rng = generator_for(base.name, step)
        chosen = rng.choice(len(photos), size=args.batch, p=weights)
        texts = write_captions([attributes[index] for index in chosen], vocabulary, rng)
        tokens = base.tokenizer(
            texts, padding="max_length", max_length=base.length, truncation=True, return_tensors="pt"
        ).input_ids
        seed_torch(base.name, step)
        loss = base.loss(draw_latents(latents, chosen, rng), tokens)
        set_learning_rate(optimizer, learning_rate(step, args.steps, args.rate, warmup=200))
        loss.backward()
        nn.utils.clip_grad_norm_(everything.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for average in averages.values():
            average.update(step)
        log(step, args.batch, loss=loss.item())
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            save_checkpoint(checkpoint, step + 1, base.modules, averages, optimizer)
        if (step + 1) % 400 == 0 or step + 1 == args.steps:
            publish(base, {name: average.shadow for name, average in averages.items()}, latents.scale, args)


def publish(base: Base, weights: dict[str, dict[str, torch.Tensor]], scale: float, args: argparse.Namespace) -> None:
    """Export in half precision, and draw SHOWN for looking at while training."""
    base.autoencoder.float()  # in half precision since the last export
    pipeline = base.pipeline(weights, scale)
    pipeline.set_progress_bar_config(disable=True)
    seeds = [torch.Generator().manual_seed(index) for index in range(len(SHOWN))]
    images = pipeline(SHOWN, num_inference_steps=16, guidance_scale=4.0, generator=seeds, output_type="np").images
    save_grid(args.work / f"{base.name}.png", (images * 255).round().astype(np.uint8), columns=12)
    pipeline.to(torch.float16)
    for module in pipeline.components.values():
        if isinstance(module, nn.Module):
            module.to(memory_format=torch.contiguous_format)
    replace_folder(args.out, lambda folder: pipeline.save_pretrained(folder))


def _tokenizer(args: argparse.Namespace, texts: Any) -> CLIPTokenizer:
    """The flow's text encoder starts from the UNet's, and so reads its tokens."""
    if args.base == "flow":
        return CLIPTokenizer.from_pretrained(GENERATOR / "tokenizer")
    return kept_tokenizer(args.work / "generator_tokenizer", texts)


if __name__ == "__main__":
    main()
