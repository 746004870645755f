"""How a machine computes fastest: measured once, in about two seconds, and kept in a file.

Whether bf16 pays cannot be told from a processor's flags: with AVX512-BF16 some compute it at less than half the rate
of fp32, others at twice; with AMX it is three times as fast. Nor can the memory format or the attention be guessed.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

Task = Literal["drawing", "training"]
Precision = Literal["fp32", "bf16", "fp16"]
Layout = Literal["contiguous", "channels_last"]
Attention = Literal["classic", "fused"]

CLASSIC_ATTENTION_TOKENS = 1024
"""Classic attention holds a full matrix of tokens by tokens: beyond this many latents it is not considered."""

REPEATS = 3
FAR_SLOWER = 2.5
"""Times the fastest: bf16 on a processor that does not have it takes ten times as long, and minutes under load."""

_BATCH, _SIDE, _TEXT = 8, 16, 64


@dataclass(frozen=True)
class ComputeConfig:
    """How a UNet is computed."""

    precision: Precision = "fp32"
    layout: Layout = "contiguous"
    attention: Attention = "fused"

    def within(self, latent_tokens: int) -> "ComputeConfig":
        """The same, with fused attention where the classic one would need too much memory."""
        fused = latent_tokens > CLASSIC_ATTENTION_TOKENS
        return ComputeConfig(self.precision, self.layout, "fused") if fused else self


def fastest(task: Task, measured: dict[ComputeConfig, float], precision: str = "auto") -> ComputeConfig:
    """The configuration with the lowest figure, among those of a precision."""
    allowed = [config for config in measured if precision in ("auto", config.precision)]
    return min(allowed, key=lambda config: measured[config])


def measure_cpu(task: Task, keep: Path | None = None) -> dict[ComputeConfig, float]:
    """Milliseconds of one pass of a small UNet for every configuration, drawing or training, on this machine's CPU.

    With the folder `keep`, figures of the same processor, torch and number of threads are read from it, or left there.
    """
    file = keep / f"{machine()}.json" if keep else None
    known = _read(file)
    if task not in known:
        measured = {task: [[asdict(config), figure] for config, figure in _measure(task).items()]}
        known = _read(file) | measured  # another process may have measured the other task meanwhile
        if file:
            _write(file, known)
    return {ComputeConfig(**config): float(figure) for config, figure in known[task]}


def machine() -> str:
    """Names the processor, torch's version and its number of threads."""
    parts = (_processor(), torch.__version__, str(torch.get_num_threads()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def apply(unet: Any, config: ComputeConfig) -> None:
    """Set a UNet's attention and memory format; its precision is the caller's to set."""
    unet.set_attn_processor(AttnProcessor() if config.attention == "classic" else AttnProcessor2_0())
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    to: Any = torch.nn.Module.to
    to(unet, memory_format=formats[config.layout])


def _measure(task: Task) -> dict[ComputeConfig, float]:
    """First with one image: where that takes far longer than in the fastest configuration, the batch is not tried."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")  # fp16 is slow on every CPU
    configs = [ComputeConfig(*config) for config in product(precisions, get_args(Layout), get_args(Attention))]
    alone = _in_turns(task, configs, 1, repeats=1)
    promising = [config for config in configs if alone[config] <= FAR_SLOWER * min(alone.values())]
    measured = {config: _BATCH * alone[config] for config in configs} | _in_turns(task, promising, _BATCH, REPEATS)
    return {config: round(figure, 2) for config, figure in measured.items()}


def _in_turns(task: Task, configs: Sequence[ComputeConfig], batch: int, repeats: int) -> dict[ComputeConfig, float]:
    """Milliseconds of a pass, the best of `repeats` after one to warm up.

    The configurations take turns, so that a neighbour's load falls on all of them.
    """
    passes = {config: _pass_of(task, config, batch) for config in configs}
    best = dict.fromkeys(passes, float("inf"))
    for turn in range(repeats + 1):
        for config, run in passes.items():
            began = time.perf_counter()
            run()
            best[config] = min(best[config], 1000 * (time.perf_counter() - began)) if turn else best[config]
    return best


def _pass_of(task: Task, config: ComputeConfig, batch: int) -> Callable[[], None]:
    unet = _small_unet()
    apply(unet, config)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    latents, text = torch.zeros(batch, 4, _SIDE, _SIDE), torch.zeros(batch, 77, _TEXT)
    steps = torch.full((batch,), 500)

    def draw() -> None:
        with torch.inference_mode():
            unet(latents.to(dtype), steps, encoder_hidden_states=text.to(dtype))

    def train() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            predicted = unet(latents.clone().requires_grad_(), steps, encoder_hidden_states=text).sample
        predicted.float().square().mean().backward()

    if task == "drawing":
        torch.nn.Module.to(unet, dtype=dtype)
        return draw
    return train


def _small_unet() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=_SIDE,
            block_out_channels=(64, 128),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=_TEXT,
            attention_head_dim=4,
            norm_num_groups=8,
        ).eval()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _read(file: Path | None) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file else {}
    except (OSError, ValueError):
        return {}


def _write(file: Path, known: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_text(json.dumps(known, indent=1), encoding="utf-8")
    fresh.replace(file)
