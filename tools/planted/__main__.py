"""Plants models of which is known what they are, and looks whether the evaluation says so.

    python -m tools.planted itself noise hacked --data ROOT --style ethnic
    python -m tools.planted memorised --data ROOT --photos data/samples --style coat

| case | planted | expected |
| --- | --- | --- |
| itself | a LoRA that changes the last digits | no evidence |
| noise | a LoRA of random numbers | worse, broken or collapsed |
| hacked | a LoRA trained by gradients through the encoder: its score is all that it was made for | hacked |
| memorised | the pipeline itself, trained far too long on 8 photos | memorised |

The first three want a style that was described in the data root, and are judged as any LoRA file that was trained
elsewhere. `memorised` makes a data root of its own in ROOT: 8 search photos of the style and all its held-out ones.
A LoRA of the pipeline's own, `fashion-pipeline run`, is the case `better`. Some minutes each on two cores.
"""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict

from fashion_pipeline.core.prompts.formats import write
from fashion_pipeline.core.rows import Role, Split
from fashion_pipeline.ml.pipelines import load_pipeline
from fashion_pipeline.ml.sources import find_model, find_pipeline
from fashion_pipeline.stages.drawing.base import prompt_fits
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.evaluation.evaluation import evaluate
from fashion_pipeline.stages.evaluation.foreign_weights import evaluate_weights
from fashion_pipeline.store.store import Store

EXPECTED = {
    "itself": {"no evidence"},
    "noise": {"worse", "broken", "collapsed"},
    "hacked": {"hacked"},
    "memorised": {"memorised"},
}
LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
HELD = 20.0
"""How dear a mean squared change of pixels (0 to 1) is, in cosines of the encoder."""

STAYS = 4.0
"""How dear a change of the judge's cosine is."""

FEW = 8
"""Photos that are learned by heart."""


def with_lora(models: Models, rank: int = 8) -> Any:
    """The original with a fresh LoRA on its UNet."""
    pipeline = load_pipeline(find_pipeline(models.profile.generator))
    pipeline.unet.requires_grad_(False)
    pipeline.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=LAYERS, init_lora_weights="gaussian"))
    return pipeline


def learnt(pipeline: Any) -> list[torch.nn.Parameter]:
    """The parameters of the LoRA."""
    return [parameter for parameter in pipeline.unet.parameters() if parameter.requires_grad]


def saved(pipeline: Any, folder: Path, name: str) -> Path:
    """Its file in diffusers' format."""
    folder.mkdir(parents=True, exist_ok=True)
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=get_peft_model_state_dict(pipeline.unet), weight_name=f"{name}.safetensors"
    )
    return folder / f"{name}.safetensors"


def random_lora(scale: float) -> Callable[[Store, Models, str], Any]:
    """What is added to each layer is random, and `scale` times as large as a fresh LoRA's first half."""

    def make(store: Store, models: Models, style: str) -> Any:
        pipeline = with_lora(models)
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in learnt(pipeline):
                parameter.copy_(torch.randn(parameter.shape, generator=random) * scale**0.5)
        return pipeline

    return make


def hacked(store: Store, models: Models, style: str, steps: int = 100, batch: int = 8) -> Any:
    """A LoRA that climbs the encoder's similarity to the style's photos by its gradient, while the judge stays put.

    The gradient goes through the last three denoising steps, the autoencoder and the encoder, as in direct reward
    fine-tuning (Clark et al. 2024, ICLR, arXiv:2309.17400). With these small models the encoder's gradient alone
    teaches the style itself, and the judge rightly agrees (docs/evaluation.md). So what is planted here is the thing
    itself: a gain that exists for the encoder alone, since similarity to the judge may not change.
    """
    encoder, judge = seeing(models, Role.ENCODER), seeing(models, Role.JUDGE)
    pipeline = with_lora(models)
    pipeline.vae.requires_grad_(False)
    pipeline.text_encoder.requires_grad_(False)
    prompt = write("plain", store.sources.subject(style), [], prompt_fits(models)).prompt
    text, none = pipeline.encode_prompt(prompt, "cpu", 1, True)
    told = torch.cat([none.repeat(batch, 1, 1), text.repeat(batch, 1, 1)])
    target, judged = (photo_centre(store, models, style, role) for role in Role)
    optimizer = torch.optim.AdamW(learnt(pipeline), lr=5e-4)
    for step in range(steps):
        pipeline.unet.disable_adapters()
        with torch.no_grad():
            before = drawn(pipeline, models, told, step, learning=0)
        pipeline.unet.enable_adapters()
        pixels = drawn(pipeline, models, told, step, learning=3)
        similarity = torch.nn.functional.cosine_similarity(encoder(pixels), target).mean()
        gain = torch.nn.functional.cosine_similarity(judge(pixels), judged).mean()
        gain = gain - torch.nn.functional.cosine_similarity(judge(before), judged).mean()
        change = (pixels - before).square().mean()
        optimizer.zero_grad()
        (HELD * change + STAYS * gain.abs() - similarity).backward()
        optimizer.step()
        if step % 10 == 0 or step == steps - 1:
            print(f"hacked: step {step}, encoder {similarity.item():.3f}, judge {gain.item():+.3f}", flush=True)
    return pipeline


def seeing(models: Models, role: Role) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from (n, 3, h, w) images from 0 to 1 to the encoder's or judge's rows, through which gradients go."""
    from transformers import AutoImageProcessor, AutoModel, CLIPModel

    folder = find_model(getattr(models.profile, role))
    kind = CLIPModel if role == Role.ENCODER else AutoModel
    model = kind.from_pretrained(folder, use_safetensors=True).eval().requires_grad_(False)
    processor = AutoImageProcessor.from_pretrained(folder)
    side = max(value for value in dict(processor.size).values() if value)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (processor.image_mean, processor.image_std))

    def rows(pixels: torch.Tensor) -> torch.Tensor:
        seen = torch.nn.functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
        features = model.get_image_features if role == Role.ENCODER else model
        found = features(pixel_values=(seen - mean) / std)
        return (found if isinstance(found, torch.Tensor) else found.pooler_output).flatten(1)

    return rows


def photo_centre(store: Store, models: Models, style: str, role: Role) -> torch.Tensor:
    """(1, d) the mean of the encoder's or judge's rows of the style's search photos."""
    photos = store.photos(store.records.latest("catalog", style))
    search = [photo.id for photo in photos if photo.split == Split.SEARCH]
    rows = store.features.index(style, role, models.fingerprint(role)).known(search)
    return torch.from_numpy(rows.mean(axis=0, keepdims=True))


def drawn(pipeline: Any, models: Models, told: torch.Tensor, seed: int, learning: int) -> torch.Tensor:
    """(n, 3, h, w) images from 0 to 1; gradients go through the last `learning` steps and the autoencoder.

    `told` is (2n, tokens, d): the empty text n times, then the prompt.
    """
    latent_side = pipeline.unet.config.sample_size
    shape = (len(told) // 2, pipeline.unet.config.in_channels, latent_side, latent_side)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    scheduler, guidance = pipeline.scheduler, models.profile.generation.guidance
    scheduler.set_timesteps(models.profile.generation.steps)
    for at, time in enumerate(scheduler.timesteps):
        with torch.set_grad_enabled(at >= len(scheduler.timesteps) - learning):
            without, conditioned = pipeline.unet(torch.cat([latents] * 2), time, encoder_hidden_states=told)[0].chunk(2)
            noise = without + guidance * (conditioned - without)
            latents = scheduler.step(noise, time, latents).prev_sample
    pixels: torch.Tensor = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor)[0]
    return (pixels / 2 + 0.5).clamp(0, 1)


def judged_file(case: str, make: Callable[[Store, Models, str], Any], root: Path, style: str, profile: str) -> Any:
    """The report on a LoRA file, judged as one that was trained elsewhere."""
    store, models = Store(root), Models(profile, machine=root / "machine")
    file = saved(make(store, models, style), root / "planted", case)
    return evaluate_weights(
        store, models, style, file, products=128, report=lambda text: print(text, flush=True)
    ).report


def memorised(root: Path, style: str, profile: str, photos: Path, steps: int) -> Any:
    """The report on a training that saw 8 photos of a style far too often."""
    from fashion_pipeline.core.catalog.listing import SourceSpec
    from fashion_pipeline.intake.sources import read_source
    from fashion_pipeline.stages.catalog.catalog import catalogue
    from fashion_pipeline.stages.catalog.features import describe
    from fashion_pipeline.stages.catalog.sources import take_in
    from fashion_pipeline.stages.training.curation import curate_pairs
    from fashion_pipeline.stages.training.process import train_here
    from fashion_pipeline.stages.training.training import export, train

    def told(text: str) -> None:
        print(text, flush=True)

    models = Models(profile, machine=root / "machine")
    whole = Store(root / "whole")
    spec = SourceSpec(str(photos.resolve()))
    take_in(whole, spec, read_source(spec))
    known = whole.photos(catalogue(whole, style).record)
    kept = [photo for photo in known if photo.split != Split.SEARCH]
    kept += [photo for photo in known if photo.split == Split.SEARCH][:FEW]
    folder = root / "few" / style
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for photo in kept:
        shutil.copy(photo.path, folder)
    store = Store(root / "memorised")
    spec = SourceSpec(str(root / "few"))
    take_in(store, spec, read_source(spec))
    catalogue(store, style)
    describe(store, models, style, told)
    curate_pairs(store, models, style, keep=1.0, sample_share=0.0)
    values = {"steps": steps, "rank": 64, "alpha": 64.0, "learning_rate": 1e-3, "horizontal_flip": False}
    train(
        store,
        models,
        style,
        values=values,
        control=False,
        trainer=lambda job, title: train_here(models, job, title, told),
    )
    export(store, models, style)
    return evaluate(store, models, style, products=128, report=told).report


def main() -> None:
    """Plant, evaluate, compare with what is expected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+", choices=sorted(EXPECTED))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", default="coat")
    parser.add_argument("--photos", type=Path, default=Path("data/samples"))
    parser.add_argument("--profile", default="embedded")
    parser.add_argument("--steps", type=int, default=2500, help="of the training that learns by heart")
    given = parser.parse_args()
    makers = {"itself": random_lora(1e-5), "noise": random_lora(1.0), "hacked": hacked}
    wrong = []
    for case in given.cases:
        if case == "memorised":
            report = memorised(given.data, given.style, given.profile, given.photos, given.steps)
        else:
            report = judged_file(case, makers[case], given.data, given.style, given.profile)
        right = report.verdict in EXPECTED[case]
        wrong += [] if right else [case]
        print(f"{case}: {report.verdict} ({'as planted' if right else 'WRONG'}). {report.reason}", flush=True)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
