"""Untrained models of the real classes, of every family, small enough for one busy core."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)


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


def autoencoder(**changed: Any) -> AutoencoderKL:
    usual: dict[str, Any] = {"latent_channels": 4}
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(16, 16, 16),
        norm_num_groups=8,
        sample_size=64,
        **(usual | changed),
    )


NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def stable_diffusion(folder: Path) -> Path:
    """A 64 x 64 StableDiffusionPipeline in fp16, as the embedded one."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    pipeline = StableDiffusionPipeline(
        vae=autoencoder(),
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
        scheduler=DDIMScheduler(**NOISE, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    return folder


def sdxl(folder: Path) -> Path:
    """A 64 x 64 StableDiffusionXLPipeline in fp16: two text encoders, and blocks as SDXL's."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    pipeline = StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=CLIPTextModel(text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer)),
        tokenizer=tokenizer,
        tokenizer_2=byte_tokenizer(),
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(32, 32, 32),
            layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=64,
            attention_head_dim=(2, 2, 2),
            transformer_layers_per_block=1,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 24,
            norm_num_groups=8,
        ),
        scheduler=EulerDiscreteScheduler(**NOISE),
        add_watermarker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    return folder


CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_tokenizer() -> Qwen2Tokenizer:
    """Bytes alone, and the marks of Qwen's chat template."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {token: i for i, token in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *special])}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=special[1:])
    tokenizer.chat_template = CHAT
    return tokenizer


def language_model(tokenizer: Qwen2Tokenizer, layers: int) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            tie_word_embeddings=True,
        )
    )


def flux2(folder: Path) -> Path:
    """A Flux2KleinPipeline in fp16 of eight pixels a packed latent; the language model has the layers that it takes."""
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 16, 16),
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )
    vae.bn.running_mean.normal_(std=0.2)
    vae.bn.running_var.uniform_(0.5, 2.0)
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=language_model(tokenizer, layers=28),
        tokenizer=tokenizer,
        transformer=Flux2Transformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=48,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
    )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    return folder


def z_image(folder: Path) -> Path:
    """A ZImagePipeline in fp16 of four pixels a latent."""
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    pipeline = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(scaling_factor=0.36, shift_factor=0.12, latent_channels=8),
        text_encoder=language_model(tokenizer, layers=2),
        tokenizer=tokenizer,
        transformer=ZImageTransformer2DModel(
            in_channels=8,
            dim=48,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=3,
            n_kv_heads=3,
            cap_feat_dim=16,
            axes_dims=[4, 6, 6],
            axes_lens=[1024, 64, 64],
        ),
    )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    return folder


def sd3(folder: Path) -> Path:
    """A 64 x 64 StableDiffusion3Pipeline in fp16, without a T5, with the two kinds of blocks of 3.5 medium."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    vae = autoencoder(scaling_factor=1.5, shift_factor=0.06, latent_channels=8)
    pipeline = StableDiffusion3Pipeline(
        vae=vae,
        text_encoder=CLIPTextModelWithProjection(text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer)),
        text_encoder_3=None,
        tokenizer=tokenizer,
        tokenizer_2=byte_tokenizer(),
        tokenizer_3=None,
        transformer=SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=8,
            out_channels=8,
            num_layers=3,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=72,
            caption_projection_dim=32,
            pooled_projection_dim=48,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    return folder
