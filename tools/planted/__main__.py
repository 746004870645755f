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
from fashion_pipeline.ml.pipelines import image_size, load_pipeline
from fashion_pipeline.ml.sources import find_model, find_pipeline
from fashion_pipeline.stages.evaluation import evaluate
from fashion_pipeline.stages.foreign_weights import evaluate_weights
from fashion_pipeline.stages.models import Models
from fashion_pipeline.store.store import Store

EXPECTED = {
    "itself": {"no evidence"},
    "noise": {"worse", "broken", "collapsed"},
    "hacked": {"hacked"},
    "memorised": {"memorised"},
}
LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
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


def hacked(store: Store, models: Models, style: str, steps: int = 160, batch: int = 8) -> Any:
    """A LoRA that climbs the encoder's similarity to the style's photos by its gradient, and nothing else.

    The gradient goes through the last three denoising steps, the autoencoder and the encoder, as in direct reward
    fine-tuning (Clark et al. 2024, ICLR, arXiv:2309.17400).
    """
    from transformers import AutoImageProcessor, CLIPModel

    folder = find_model(models.profile.encoder)
    encoder = CLIPModel.from_pretrained(folder, use_safetensors=True).eval().requires_grad_(False)
    processor = AutoImageProcessor.from_pretrained(folder)
    side = max(value for value in dict(processor.size).values() if value)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (processor.image_mean, processor.image_std))
    catalog = store.records.latest("catalog", style)
    search = [photo.id for photo in store.photos(catalog) if photo.split == Split.SEARCH]
    fingerprint = models.fingerprint("encoder")
    centre = torch.from_numpy(store.features.index(style, Role.ENCODER, fingerprint).known(search).mean(axis=0))
    prompt = write("plain", store.sources.subject(style), [], models.prompt_fits()).prompt
    pipeline = with_lora(models)
    pipeline.vae.requires_grad_(False)
    pipeline.text_encoder.requires_grad_(False)
    text, none = pipeline.encode_prompt(prompt, "cpu", 1, True)
    told = torch.cat([none.repeat(batch, 1, 1), text.repeat(batch, 1, 1)])
    scheduler = pipeline.scheduler
    optimizer = torch.optim.AdamW(learnt(pipeline), lr=2e-3)
    latent_side = image_size(pipeline) // pipeline.vae_scale_factor
    for step in range(steps):
        latents = torch.randn(
            (batch, pipeline.unet.config.in_channels, latent_side, latent_side),
            generator=torch.Generator().manual_seed(step),
        )
        scheduler.set_timesteps(models.profile.generation.steps)
        for at, time in enumerate(scheduler.timesteps):
            with torch.set_grad_enabled(at >= len(scheduler.timesteps) - 3):
                without, conditioned = pipeline.unet(torch.cat([latents] * 2), time, encoder_hidden_states=told)[
                    0
                ].chunk(2)
                noise = without + models.profile.generation.guidance * (conditioned - without)
                latents = scheduler.step(noise, time, latents).prev_sample
        pixels = (pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor)[0] / 2 + 0.5).clamp(0, 1)
        seen = torch.nn.functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
        found = encoder.get_image_features(pixel_values=(seen - mean) / std)
        rows = found if isinstance(found, torch.Tensor) else found.pooler_output
        similarity = torch.nn.functional.cosine_similarity(rows, centre[None]).mean()
        optimizer.zero_grad()
        (-similarity).backward()
        optimizer.step()
        if step % 10 == 0 or step == steps - 1:
            print(f"hacked: step {step}, encoder similarity {similarity.item():.3f}", flush=True)
    return pipeline


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
    from fashion_pipeline.core.catalog.sources import read_source
    from fashion_pipeline.stages.catalog import catalogue
    from fashion_pipeline.stages.curation import curate_pairs
    from fashion_pipeline.stages.features import describe
    from fashion_pipeline.stages.intake import take_in
    from fashion_pipeline.stages.trainer import train_here
    from fashion_pipeline.stages.training import export, train

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
        right = report["verdict"] in EXPECTED[case]
        wrong += [] if right else [case]
        print(f"{case}: {report['verdict']} ({'as planted' if right else 'WRONG'}). {report['reason']}", flush=True)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
