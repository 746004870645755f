"""Untrained models of the real classes, small enough for one busy core."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    ConvNextImageProcessorPil,
    ResNetConfig,
    ResNetModel,
)

from fashion_pipeline.core.prompts.requests import Drawing
from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.training import finetuning
from fashion_pipeline.ml.training.results import TrainingJob, TrainingPair, TrainingResult

CPU = Device("cpu", "fp32", "cpu for tests")
DRAWING = Drawing(image_size=64, steps=2, guidance=3.0, batch_size=2)


def job_of(base, pairs, held_out, recipe, output, cache=None, validation=None) -> TrainingJob:
    """A training with its cache in its output."""
    cache = cache or Path(output) / "cache"
    return TrainingJob(str(base), tuple(pairs), tuple(held_out), recipe, Path(output), cache, DRAWING, validation)


def finetune(base, pairs, held_out, recipe, output, device, report=None, **more) -> TrainingResult:
    """Train at once."""
    loading = {"load_image": more.pop("load_image", Image.open)}
    job = job_of(base, pairs, held_out, recipe, output, **more)
    return finetuning.finetune(job, device, report=report or (lambda row: None), **loading)


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """A resumed training equals an undisturbed one at the same number of threads; other tests may have more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def byte_tokenizer() -> CLIPTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77)


def text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@pytest.fixture(scope="session")
def generator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 64 x 64 StableDiffusionPipeline in fp16, as the embedded one."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 3,
            up_block_types=["UpDecoderBlock2D"] * 3,
            block_out_channels=(16, 16, 16),
            latent_channels=4,
            norm_num_groups=8,
            sample_size=64,
        ),
        text_encoder=CLIPTextModel(text_config(tokenizer)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(32, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=2,
            norm_num_groups=8,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("models") / "generator"
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    tokenizer = byte_tokenizer()
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = CLIPConfig(text_config=text_config(tokenizer).to_dict(), vision_config=vision, projection_dim=24)
    folder = tmp_path_factory.mktemp("models") / "encoder"
    sides = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    for part in (CLIPModel(config).half(), tokenizer, CLIPImageProcessorPil(**sides)):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def judge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    folder = tmp_path_factory.mktemp("models") / "judge"
    for part in (ResNetModel(config), ConvNextImageProcessorPil(size={"shortest_edge": 64}, crop_pct=1.0)):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingPair]:
    """Six plain photos with captions, the last two for holding out."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for index, colour in enumerate(("red", "green", "blue", "black", "red", "green")):
        file = folder / f"{index}.png"
        Image.new("RGB", (64 + index, 80), colour).save(file)
        rows.append(TrainingPair(str(file), f"a {colour} coat"))
    return rows
