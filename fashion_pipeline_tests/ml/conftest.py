"""Untrained models of the real classes, small enough for one busy core."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ConvNextImageProcessorPil,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ResNetConfig,
    ResNetModel,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    ViTImageProcessorPil,
)

from fashion_pipeline.core.prompts.requests import Drawing
from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.training import finetuning
from fashion_pipeline.ml.training.results import TrainingJob, TrainingPair, TrainingResult
from fashion_pipeline_tests.ml import tiny
from fashion_pipeline_tests.ml.tiny import byte_tokenizer, text_config

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


@pytest.fixture(scope="session")
def generator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 64 x 64 StableDiffusionPipeline in fp16, as the embedded one."""
    return tiny.stable_diffusion(tmp_path_factory.mktemp("models") / "generator")


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 64 x 64 StableDiffusionXLPipeline in fp16."""
    return tiny.sdxl(tmp_path_factory.mktemp("models") / "sdxl")


@pytest.fixture(scope="session")
def sd3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 64 x 64 StableDiffusion3Pipeline in fp16."""
    return tiny.sd3(tmp_path_factory.mktemp("models") / "sd3")


@pytest.fixture(scope="session")
def flux2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Flux2KleinPipeline in fp16."""
    return tiny.flux2(tmp_path_factory.mktemp("models") / "flux2")


@pytest.fixture(scope="session")
def z_image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ZImagePipeline in fp16."""
    return tiny.z_image(tmp_path_factory.mktemp("models") / "z_image")


_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def _text_image(folder: Path, kind: Any, config: Any, processor: Any, **vision: int) -> Path:
    torch.manual_seed(2)
    tokenizer = byte_tokenizer()
    text = {**_SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 64}
    for each in (kind(config(text_config=text, vision_config={**_SMALL, **vision})), processor, tokenizer):
        each.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "siglip"
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    return _text_image(folder, SiglipModel, SiglipConfig, processor, image_size=32, patch_size=8)


@pytest.fixture(scope="session")
def siglip2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that sees images in their own proportions, as patches."""
    folder = tmp_path_factory.mktemp("models") / "siglip2"
    processor = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    return _text_image(folder, Siglip2Model, Siglip2Config, processor, num_patches=16, patch_size=8)


@pytest.fixture(scope="session")
def dinov3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("models") / "dinov3"
    DINOv3ViTModel(DINOv3ViTConfig(**_SMALL, image_size=32, patch_size=8)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
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
