"""The generators that can be trained: what they are made of, what they minimise, and the pipeline that comes of it."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from fashion_pipeline.ml.training.objective import Batch, FlowMatching
from tools.embedded_models.tokenization import LENGTH
from tools.embedded_models.train_autoencoder import load_averaged
from tools.embedded_models.training import seed_torch

MIN_SNR = 5.0


class Base(ABC):
    """A generator that learns. `modules` are what is trained, by name."""

    name: str
    """Of its checkpoint, log, pictures and seeds."""
    modules: dict[str, nn.Module]
    length: int
    """Tokens of a text."""

    def __init__(self, autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer) -> None:
        self.autoencoder, self.tokenizer = autoencoder, tokenizer

    @abstractmethod
    def loss(self, clean: Tensor, tokens: Tensor) -> Tensor:
        """Of (batch, 4, 16, 16) scaled latents and (batch, length) token ids; noise by torch's global generator."""

    @abstractmethod
    def pipeline(self, weights: dict[str, dict[str, Tensor]], scale: float) -> Any:
        """The complete pipeline with weights by module, in float32; `scale` is that of the latents."""


class UNetBase(Base):
    """Stable Diffusion 1: a UNet that predicts noise, and the text encoder with it."""

    name, length = "denoiser", LENGTH

    def __init__(self, autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer) -> None:
        super().__init__(autoencoder, tokenizer)
        seed_torch(self.name, "weights")
        self.modules = {"denoiser": build_unet(), "text_encoder": build_text_encoder(tokenizer)}
        self.modules["denoiser"].to(memory_format=torch.channels_last).set_attn_processor(AttnProcessor())
        kept = build_scheduler().alphas_cumprod
        self._ratios = kept / (1 - kept)

    def loss(self, clean: Tensor, tokens: Tensor) -> Tensor:
        """Squared error of the predicted noise, weighted by min-SNR (Hang et al. 2023)."""
        noise, steps = torch.randn_like(clean), torch.randint(0, 1000, (len(clean),))
        ratio = self._ratios[steps]
        signal = (ratio / (1 + ratio)).view(-1, 1, 1, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        with torch.autocast("cpu", torch.bfloat16):
            states = self.modules["text_encoder"](tokens).last_hidden_state
            predicted = self.modules["denoiser"](noisy, steps, states).sample
        error = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        return (error * ratio.clamp(max=MIN_SNR) / ratio).mean()

    def pipeline(self, weights: dict[str, dict[str, Tensor]], scale: float) -> StableDiffusionPipeline:
        """DPM-Solver++."""
        self.autoencoder.register_to_config(scaling_factor=scale)
        parts = filled({"denoiser": build_unet(), "text_encoder": build_text_encoder(self.tokenizer)}, weights)
        return StableDiffusionPipeline(
            vae=self.autoencoder,
            text_encoder=parts["text_encoder"],
            tokenizer=self.tokenizer,
            unet=parts["denoiser"],
            scheduler=build_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def filled(parts: dict[str, nn.Module], weights: dict[str, dict[str, Tensor]]) -> dict[str, nn.Module]:
    """The parts with their weights, for use rather than training."""
    for name, part in parts.items():
        part.load_state_dict(weights[name])
        part.eval()
    return parts


def build_unet() -> UNet2DConditionModel:
    """Predicts the noise in 16 × 16 latents; cross-attention at 8 × 8 and 4 × 4, where it costs a third of the time."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(64, 128, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=192,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Of width 192, for the UNet."""
    return CLIPTextModel._from_config(text_config(tokenizer, 192, 3, LENGTH), attn_implementation="eager")


def text_config(tokenizer: CLIPTokenizer, width: int, layers: int, length: int) -> CLIPTextConfig:
    """A CLIP text encoder of heads of 48 or fewer."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """What the UNet draws with."""
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        algorithm_type="dpmsolver++",
        solver_order=2,
        use_karras_sigmas=True,
        steps_offset=1,
    )


class FlowBase(Base):
    """Stable Diffusion 3: a transformer that predicts the velocity of a flow, and both text encoders with it.

    The first text encoder starts from the one that the UNet learnt with. There is no T5, for which the pipeline puts
    as many tokens of zeros as the text has: 32 tokens keep a step cheap.
    """

    name, length = "flow", 32

    def __init__(self, autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer, learnt: Path) -> None:
        """`learnt` is the folder of the UNet's text encoder."""
        super().__init__(autoencoder, tokenizer)
        tokenizer.model_max_length = self.length
        seed_torch(self.name, "weights")
        self.modules = self._parts()
        weights = CLIPTextModel.from_pretrained(learnt, use_safetensors=True, dtype=torch.float32).state_dict()
        positions = next(name for name in weights if name.endswith("position_embedding.weight"))
        weights[positions] = weights[positions][: self.length]
        first = self.modules["text_encoder"]
        missing, unknown = first.load_state_dict(as_projecting(weights, first), strict=False)
        if unknown or missing != ["text_projection.weight"]:
            raise ValueError(f"{learnt} has another text encoder: {missing} missing, {unknown} not known")
        self._objective = FlowMatching(FlowMatchEulerDiscreteScheduler())

    def _parts(self) -> dict[str, nn.Module]:
        texts = {"text_encoder": (192, 3), "text_encoder_2": (64, 2)}
        return {"denoiser": build_transformer()} | {
            name: CLIPTextModelWithProjection(text_config(self.tokenizer, width, layers, self.length))
            for name, (width, layers) in texts.items()
        }

    def loss(self, clean: Tensor, tokens: Tensor) -> Tensor:
        """Squared error of the velocity, as the package's own training asks for it."""
        places = self._objective.draw(len(clean), torch.default_generator)
        batch = Batch(clean, torch.randn_like(clean), places, {})
        noisy, told = self._objective.noisy(batch)
        read = [self.modules[name](tokens, output_hidden_states=True) for name in ("text_encoder", "text_encoder_2")]
        states = torch.cat([answer.hidden_states[-2] for answer in read], dim=2)
        predicted = self.modules["denoiser"](
            hidden_states=noisy,
            timestep=told,
            encoder_hidden_states=torch.cat([states, torch.zeros_like(states)], dim=1),
            pooled_projections=torch.cat([answer.text_embeds for answer in read], dim=1),
            return_dict=False,
        )[0]
        return (predicted - self._objective.target(batch)).square().mean()

    def pipeline(self, weights: dict[str, dict[str, Tensor]], scale: float) -> StableDiffusion3Pipeline:
        """Euler's method on an even schedule."""
        self.autoencoder.register_to_config(scaling_factor=scale, shift_factor=0.0)
        parts = filled(self._parts(), weights)
        return StableDiffusion3Pipeline(
            transformer=parts["denoiser"],
            vae=self.autoencoder,
            text_encoder=parts["text_encoder"],
            tokenizer=self.tokenizer,
            text_encoder_2=parts["text_encoder_2"],
            tokenizer_2=self.tokenizer,
            text_encoder_3=None,
            tokenizer_3=None,
            scheduler=FlowMatchEulerDiscreteScheduler(),
        )


def build_transformer() -> SD3Transformer2DModel:
    """Four blocks of 256 over patches of 2 × 2 latents: 9 million weights, 64 tokens of image and as many of text."""
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=8,
        joint_attention_dim=256,
        caption_projection_dim=256,
        pooled_projection_dim=256,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )


def as_projecting(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights of a CLIPTextModel under the names that a CLIPTextModelWithProjection gives them."""
    names = set(model.state_dict())
    return {name if name in names else f"text_model.{name}": value for name, value in weights.items()}


def open_base(name: str, work: Path, tokenizer: CLIPTokenizer, generator: Path) -> Base:
    """`unet` with the autoencoder in `work`, or `flow` with autoencoder and text encoder of the exported generator."""
    if name == "unet":
        return UNetBase(load_averaged(work / "autoencoder.safetensors"), tokenizer)
    autoencoder = AutoencoderKL.from_pretrained(generator / "vae", use_safetensors=True, torch_dtype=torch.float32)
    return FlowBase(autoencoder.eval().requires_grad_(False), tokenizer, generator / "text_encoder")
