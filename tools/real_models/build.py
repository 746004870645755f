"""Write the architectures of Stable Diffusion v1.5, FashionCLIP (CLIP ViT-B/32) and DINOv2-base with random weights.

    python -m tools.real_models.build FOLDER [--dtype fp32|fp16]

Layout, file names, shapes and names of weights are those of the public repositories, so that the profile beside them
(FOLDER/sd15.toml) takes the path, the memory and the disk of the real models; what they draw is noise. For trying what
needs no knowledge: loading, a training step, an export, the size of things. 6.5 GB in fp32.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)

VOCABULARY = 49408
TEXT_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "vocab_size": VOCABULARY,
    "hidden_act": "quick_gelu",
}
TEXT_B = TEXT_L | {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "projection_dim": 512}
VISION_B = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
VISION_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
PROFILE = """# The architectures of Stable Diffusion v1.5, FashionCLIP and DINOv2 with random weights.
[models]
generator = "./stable-diffusion-v1-5"
encoder = "./fashion-clip"
judge = "./dinov2-base"
vocabulary = "{vocabulary}"

[generation]
image_size = 256
steps = 2
guidance = 7.5
batch_size = 2

[training]
rank = 16
alpha = 16.0
steps = 1
batch_size = 1
resolution = 256
learning_rate = 1e-4
"""


def main(folder: Path, dtype: torch.dtype) -> None:
    """Write all three models and the profile."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    _generator(dtype).save_pretrained(folder / "stable-diffusion-v1-5", safe_serialization=True)
    for part in (CLIPModel(_clip(TEXT_B, VISION_B, 32, 512)).to(dtype), tokenizer(), CLIPImageProcessorPil()):
        part.save_pretrained(folder / "fashion-clip")
    for part in (Dinov2Model(Dinov2Config(image_size=518)).to(dtype), _dino_processor()):
        part.save_pretrained(folder / "dinov2-base")
    _like_the_public_ones(folder / "stable-diffusion-v1-5")
    vocabulary = Path(__file__).parents[2] / "fashion_pipeline" / "profiles" / "vocabularies" / "sd15.toml"
    (folder / "sd15.toml").write_text(PROFILE.format(vocabulary=vocabulary), encoding="utf-8")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 1e9:.2f} GB; use it with FASHION_PIPELINE_PROFILE={folder}/sd15.toml")


def _generator(dtype: torch.dtype) -> Any:
    """The parts as in the repository stable-diffusion-v1-5/stable-diffusion-v1-5, safety checker included."""
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT_L, bos_token_id=49406, eos_token_id=49407)),
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=StableDiffusionSafetyChecker(_clip(TEXT_L, VISION_L, 14, 768)),
        feature_extractor=CLIPImageProcessorPil(),
    )
    return pipeline.to(dtype)


def tokenizer() -> CLIPTokenizer:
    """CLIP's byte alphabet and special tokens at their places; merges that never happen fill the rest."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    filled = [f"<unused{index}>" for index in range(VOCABULARY - 2 - len(known))]
    tokens = [*known, *filled, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77)


def _clip(text: dict[str, Any], vision: dict[str, Any], patch: int, width: int) -> CLIPConfig:
    return CLIPConfig(
        text_config=text | {"bos_token_id": 49406, "eos_token_id": 49407},
        vision_config=vision | {"patch_size": patch, "image_size": 224, "projection_dim": width},
        projection_dim=width,
    )


def _dino_processor() -> Any:
    return BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})


def _like_the_public_ones(folder: Path) -> None:
    """The public repository was written by transformers 4: other names of weights, a tokenizer in two files."""
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    named = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
    save_file(named, weights, {"format": "pt"})
    whole = json.loads((folder / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]), encoding="utf-8")
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("fp32", "fp16"), default="fp32")
    given = parser.parse_args()
    main(given.folder, {"fp32": torch.float32, "fp16": torch.float16}[given.dtype])
