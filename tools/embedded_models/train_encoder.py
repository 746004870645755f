"""Train the encoder: a CLIPModel from scratch, for which every caption that is true of a photo is right."""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer

from tools.embedded_models.augmentation import random_views
from tools.embedded_models.captions import FACETS, Caption, attributes_of, compose, join, load_vocabulary, question
from tools.embedded_models.exporting import export
from tools.embedded_models.photos import IMAGE_SIZE, Photos, load_photos, seen_by_encoders
from tools.embedded_models.tokenization import LENGTH, corpus, kept_tokenizer
from tools.embedded_models.train_judge import image_processor, targets_of
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

NAME = "encoder"
FACET_WEIGHT = {"garment": 1.5, "colour": 0.7, "audience": 0.3, "season": 0.1, "usage": 0.4}


def build_encoder(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Images of 64 pixels in patches of 8, 77 tokens of text, embeddings of 192; eager attention trains faster here."""
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    shared = {"hidden_size": 192, "intermediate_size": 576, "num_attention_heads": 4, "projection_dim": 192}
    text = shared | special | {"num_hidden_layers": 2, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH}
    vision = shared | {"num_hidden_layers": 5, "image_size": IMAGE_SIZE, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=192)
    return CLIPModel._from_config(config, attn_implementation="eager")


def write_captions(rows: list[dict[str, str]], vocabulary: dict, rng: np.random.Generator) -> list[Caption]:
    """One caption a row; in one batch of ten half are several joined, so that late token places are taught too."""
    long = rng.random() < 0.1
    counts = [int(rng.integers(2, 7)) if long and rng.random() < 0.5 else 1 for _ in rows]
    return [
        join([compose(row, vocabulary, rng) for _ in range(count)]) for row, count in zip(rows, counts, strict=True)
    ]


def which_are_true(captions: list[Caption], attributes: list[dict[str, str]]) -> Tensor:
    """(photos, captions) float: 1 where the caption is true of the photo."""
    result = np.ones((len(attributes), len(captions)), bool)
    for facet in FACETS:
        values = [row.get(facet) for row in attributes]
        for column, caption in enumerate(captions):
            if facet in caption.content:
                allowed = caption.content[facet]
                result[:, column] &= np.fromiter((value in allowed for value in values), bool, len(values))
    return torch.from_numpy(result).float()


def contrastive_loss(logits: Tensor, true: Tensor) -> Tensor:
    """Cross-entropy both ways against the uniform distribution over what is true; (photos, captions) each."""
    forward = -(F.log_softmax(logits, dim=1) * true).sum(1) / true.sum(1).clamp(min=1)
    backward = -(F.log_softmax(logits, dim=0) * true).sum(0) / true.sum(0).clamp(min=1)
    return 0.5 * (forward.mean() + backward.mean())


def questions(vocabulary: dict, rng: np.random.Generator) -> dict[str, list[str]]:
    """For each facet one question a value, in a random phrase and template."""
    asked: dict[str, list[str]] = {}
    for facet in FACETS:
        template = str(rng.choice(vocabulary["templates"][facet]))
        asked[facet] = [
            question(vocabulary, facet, str(rng.choice(phrases)), template) for phrases in vocabulary[facet].values()
        ]
    return asked


class Batch:
    """What one step needs: images, token ids of captions and questions, what is true, and the answers."""

    def __init__(
        self,
        photos: Photos,
        attributes: list[dict[str, str]],
        vocabulary: dict,
        tokenizer: CLIPTokenizer,
        size: int,
        rng: np.random.Generator,
    ) -> None:
        chosen = rng.integers(len(photos), size=size)
        grey = rng.random(size) < 0.15
        rows = [
            _without_colour(attributes[index]) if flag else attributes[index]
            for index, flag in zip(chosen, grey, strict=True)
        ]
        captions = write_captions(rows, vocabulary, rng)
        asked = questions(vocabulary, rng)
        texts = [caption.text for caption in captions] + [text for part in asked.values() for text in part]
        self.images = random_views(photos.large[chosen], grey, rng)
        self.tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        self.true = which_are_true(captions, rows)
        self.sizes = [size, *(len(part) for part in asked.values())]
        self.answers = {facet: torch.from_numpy(targets_of(rows, vocabulary, facet)) for facet in FACETS}


def _without_colour(attributes: dict[str, str]) -> dict[str, str]:
    return {facet: value for facet, value in attributes.items() if facet != "colour"}


def total_loss(model: CLIPModel, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Contrast between photos and captions, and for each facet the question whose answer is right."""
    with torch.autocast("cpu", torch.bfloat16):
        output = model(pixel_values=batch.images, **batch.tokens)
    logits = output.logits_per_image.float().split(batch.sizes, dim=1)
    loss = contrastive_loss(logits[0], batch.true)
    parts = {"contrast": loss.item()}
    for facet, part in zip(FACETS, logits[1:], strict=True):
        answered = F.cross_entropy(part, batch.answers[facet], label_smoothing=0.05)
        parts[facet] = answered.item()
        loss = loss + FACET_WEIGHT[facet] * answered
    return loss, parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="the file that prepare_photos.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and logs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the exported model")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    train(parser.parse_args())


def train(args: argparse.Namespace) -> None:
    """Train until `args.steps`, from the checkpoint if there is one, and export."""
    prepare_cpu(args.threads)
    photos = load_photos(args.cache)
    photos = photos.where(seen_by_encoders(photos))
    vocabulary = load_vocabulary()
    attributes = attributes_of(photos, vocabulary)
    tokenizer = kept_tokenizer(args.work / "encoder_tokenizer", lambda: corpus(photos, vocabulary))
    seed_torch(NAME, "weights")
    model = build_encoder(tokenizer).train()
    optimizer = torch.optim.AdamW(_groups(model), lr=args.rate, betas=(0.9, 0.98))
    average = Averaged(model, decay=0.995)
    checkpoint = args.work / "encoder.safetensors"
    parts = {"model": model}, {"model": average}, optimizer
    log = log_every(args.work / "encoder.jsonl", every=50)
    for step in range(load_checkpoint(checkpoint, *parts), args.steps):
        batch = Batch(photos, attributes, vocabulary, tokenizer, args.batch, generator_for(NAME, step))
        set_learning_rate(optimizer, learning_rate(step, args.steps, args.rate, warmup=200))
        loss, values = total_loss(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(step)
        log(step, args.batch, loss=loss.item(), **values)
        if (step + 1) % 300 == 0 or step + 1 == args.steps:
            save_checkpoint(checkpoint, step + 1, *parts)
            export(args.out, build_encoder(tokenizer), average, [CLIPProcessor(image_processor(), tokenizer)])


def _groups(model: nn.Module) -> list[dict]:
    """Matrices decay, gains, biases and the logit scale do not."""
    matrices = [value for value in model.parameters() if value.ndim >= 2]
    others = [value for value in model.parameters() if value.ndim < 2]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]


if __name__ == "__main__":
    main()
