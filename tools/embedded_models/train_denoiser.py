"""Train the generator's UNet and text encoder together on cached latents, and export a StableDiffusionPipeline."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tools.embedded_models.captions import attributes_of, compose, load_vocabulary, without_reserved
from tools.embedded_models.exporting import replace_folder
from tools.embedded_models.photos import Photos, load_photos, seen_by_generator
from tools.embedded_models.tokenization import LENGTH, corpus, kept_tokenizer
from tools.embedded_models.train_autoencoder import load_averaged
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
    to_float,
)

NAME = "denoiser"
WIDTH = 192
CHANCE = {"garment": 0.95, "colour": 0.85, "audience": 0.4, "season": 0.15, "usage": 0.3}
DROPPED = 0.1
MIN_SNR = 5.0
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


@dataclass(frozen=True)
class Latents:
    """Means and standard deviations (2, n, 4, 16, 16) float32 of every photo as it is and mirrored, and their scale."""

    mean: Tensor
    std: Tensor
    scale: float


def build_denoiser() -> UNet2DConditionModel:
    """Predicts the noise in 16 × 16 latents; cross-attention at 8 × 8 and 4 × 4, where it costs a third of the time."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(64, 128, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=512,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        **special,
    )
    return CLIPTextModel._from_config(config, attn_implementation="eager")


def build_scheduler() -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        algorithm_type="dpmsolver++",
        solver_order=2,
        use_karras_sigmas=True,
        steps_offset=1,
    )


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
    with torch.autocast("cpu", torch.bfloat16):
        latent = autoencoder.encode(to_float(pixels)).latent_dist
    return latent.mean.float().contiguous(), latent.std.float().contiguous()


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


def signal_to_noise(scheduler: DPMSolverMultistepScheduler) -> Tensor:
    """(1000,) ratio of signal to noise power at each step."""
    return scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)


def noise_loss(
    denoiser: UNet2DConditionModel, noisy: Tensor, steps: Tensor, states: Tensor, noise: Tensor, ratio: Tensor
) -> Tensor:
    """Squared error of the predicted noise, weighted by min-SNR (Hang et al. 2023)."""
    with torch.autocast("cpu", torch.bfloat16):
        predicted = denoiser(noisy, steps, states).sample
    error = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
    return (error * ratio.clamp(max=MIN_SNR) / ratio).mean()


def assemble(modules: dict[str, nn.Module], tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """The complete pipeline of autoencoder, denoiser and text encoder."""
    pipeline = StableDiffusionPipeline(
        vae=modules["autoencoder"],
        text_encoder=modules["text_encoder"],
        tokenizer=tokenizer,
        unet=modules["denoiser"],
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def averaged_pipeline(
    work: Path, averages: dict[str, Averaged], tokenizer: CLIPTokenizer, scale: float
) -> StableDiffusionPipeline:
    """The pipeline with averaged weights, in float32."""
    autoencoder = load_averaged(work / "autoencoder.safetensors")
    autoencoder.register_to_config(scaling_factor=scale)
    modules = {"autoencoder": autoencoder, "denoiser": build_denoiser(), "text_encoder": build_text_encoder(tokenizer)}
    for name, average in averages.items():
        modules[name].load_state_dict(average.shadow)
    return assemble({name: module.eval() for name, module in modules.items()}, tokenizer)


def publish(pipeline: StableDiffusionPipeline, out: Path, picture: Path) -> None:
    """Export in half precision, and draw SHOWN for looking at while training."""
    seeds = [torch.Generator().manual_seed(index) for index in range(len(SHOWN))]
    pipeline.unet.set_attn_processor(AttnProcessor())
    with torch.autocast("cpu", torch.bfloat16):
        images = pipeline(SHOWN, num_inference_steps=16, guidance_scale=4.0, generator=seeds, output_type="np").images
    save_grid(picture, (images * 255).round().astype(np.uint8), columns=12)
    pipeline.to(torch.float16)
    for module in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        module.to(memory_format=torch.contiguous_format)
    replace_folder(out, lambda folder: pipeline.save_pretrained(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
    tokenizer = kept_tokenizer(args.work / "generator_tokenizer", lambda: corpus(photos, vocabulary))
    autoencoder = load_averaged(args.work / "autoencoder.safetensors").to(memory_format=torch.channels_last)
    latents = cached_latents(args.work / "latents.npz", autoencoder, photos)
    seed_torch(NAME, "weights")
    modules = {"denoiser": build_denoiser(), "text_encoder": build_text_encoder(tokenizer)}
    modules["denoiser"].to(memory_format=torch.channels_last).set_attn_processor(AttnProcessor())
    both = nn.ModuleDict(modules).train()
    optimizer = torch.optim.AdamW(both.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0.01)
    averages = {name: Averaged(module, decay=0.998) for name, module in modules.items()}
    checkpoint = args.work / "denoiser.safetensors"
    ratios = signal_to_noise(build_scheduler())
    log = log_every(args.work / "denoiser.jsonl", every=50)
    for step in range(load_checkpoint(checkpoint, modules, averages, optimizer), args.steps):
        rng = generator_for(NAME, step)
        chosen = rng.choice(len(photos), size=args.batch, p=weights)
        texts = write_captions([attributes[index] for index in chosen], vocabulary, rng)
        tokens = tokenizer(
            texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
        ).input_ids
        seed_torch(NAME, step)
        clean = draw_latents(latents, chosen, rng)
        noise, steps = torch.randn_like(clean), torch.randint(0, 1000, (args.batch,))
        ratio = ratios[steps]
        signal = (ratio / (1 + ratio)).view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            states = modules["text_encoder"](tokens).last_hidden_state
        loss = noise_loss(
            modules["denoiser"], signal.sqrt() * clean + (1 - signal).sqrt() * noise, steps, states, noise, ratio
        )
        set_learning_rate(optimizer, learning_rate(step, args.steps, args.rate, warmup=200))
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for average in averages.values():
            average.update(step)
        log(step, args.batch, loss=loss.item())
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            save_checkpoint(checkpoint, step + 1, modules, averages, optimizer)
        if (step + 1) % 400 == 0 or step + 1 == args.steps:
            publish(
                averaged_pipeline(args.work, averages, tokenizer, latents.scale), args.out, args.work / "denoiser.png"
            )


def draw_latents(latents: Latents, chosen: np.ndarray, rng: np.random.Generator) -> Tensor:
    """(batch, 4, 16, 16) scaled latents of the chosen photos, half of them mirrored, drawn from their distributions."""
    mirrored = torch.from_numpy(rng.integers(0, 2, len(chosen)))
    places = torch.from_numpy(chosen)
    mean, std = latents.mean[mirrored, places], latents.std[mirrored, places]
    return latents.scale * (mean + std * torch.randn_like(mean))


if __name__ == "__main__":
    main()
