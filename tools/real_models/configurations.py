"""The configurations of public bases, as far as their shapes go: facts of their repositories on the hub."""

import json
from pathlib import Path
from typing import Any

_CLIP_G = {"model_type": "clip_text_model", "projection_dim": 1280}
_FOUR_BLOCKS = {"block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4}

BASES: dict[str, dict[str, dict[str, Any]]] = {
    "sd15": {
        "model_index.json": {
            "_class_name": "StableDiffusionPipeline",
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
        },
        "unet/config.json": {
            "sample_size": 64,
            "in_channels": 4,
            "block_out_channels": [320, 640, 1280, 1280],
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        "scheduler/scheduler_config.json": {"prediction_type": "epsilon"},
        "vae/config.json": {**_FOUR_BLOCKS, "latent_channels": 4, "scaling_factor": 0.18215},
    },
    "sdxl": {
        "model_index.json": {
            "_class_name": "StableDiffusionXLPipeline",
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
        },
        "unet/config.json": {
            "sample_size": 128,
            "in_channels": 4,
            "layers_per_block": 2,
            "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        "scheduler/scheduler_config.json": {"prediction_type": "epsilon"},
        "vae/config.json": {**_FOUR_BLOCKS, "latent_channels": 4, "scaling_factor": 0.13025},
        "text_encoder_2/config.json": _CLIP_G,
    },
    "sd35-medium": {
        "model_index.json": {
            "_class_name": "StableDiffusion3Pipeline",
            "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_3": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "tokenizer_3": ["transformers", "T5TokenizerFast"],
        },
        "transformer/config.json": {
            "sample_size": 128,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 384,
            "dual_attention_layers": list(range(13)),
            "qk_norm": "rms_norm",
        },
        "vae/config.json": {
            **_FOUR_BLOCKS,
            "latent_channels": 16,
            "scaling_factor": 1.5305,
            "shift_factor": 0.0609,
        },
    },
    "flux2-klein-4b": {
        "model_index.json": {
            "_class_name": "Flux2KleinPipeline",
            "text_encoder": ["transformers", "Qwen3ForCausalLM"],
            "tokenizer": ["transformers", "Qwen2TokenizerFast"],
        },
        "transformer/config.json": {
            "in_channels": 128,
            "num_layers": 5,
            "num_single_layers": 20,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 7680,
            "guidance_embeds": False,
        },
        "vae/config.json": {**_FOUR_BLOCKS, "latent_channels": 32},
    },
    "z-image": {
        "model_index.json": {
            "_class_name": "ZImagePipeline",
            "text_encoder": ["transformers", "Qwen3Model"],
            "tokenizer": ["transformers", "Qwen2Tokenizer"],
        },
        "transformer/config.json": {
            "all_patch_size": [2],
            "in_channels": 16,
            "dim": 3840,
            "n_layers": 30,
            "n_refiner_layers": 2,
            "n_heads": 30,
            "n_kv_heads": 30,
            "cap_feat_dim": 2560,
            "axes_dims": [32, 48, 48],
            "axes_lens": [1536, 512, 512],
        },
        "vae/config.json": {
            **_FOUR_BLOCKS,
            "latent_channels": 16,
            "scaling_factor": 0.3611,
            "shift_factor": 0.1159,
        },
    },
}
"""Name → file in the base's folder → its content."""

TEXTS = {
    "sd15": {"prompt_embeds": (77, 768)},
    "sdxl": {"prompt_embeds": (77, 2048), "pooled_prompt_embeds": (1280,)},
    "sd35-medium": {"prompt_embeds": (77 + 256, 4096), "pooled_prompt_embeds": (2048,)},
    "flux2-klein-4b": {"prompt_embeds": (512, 3 * 2560)},
    "z-image": {"prompt_embeds": (512, 2560)},
}
"""Name → shapes of what the denoiser is told of a text."""


def write(base: str, folder: Path) -> Path:
    """The folder of a base without weights, from which its family can be read."""
    for name, content in BASES[base].items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content), encoding="utf-8")
    return folder
