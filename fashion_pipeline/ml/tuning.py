"""How a machine computes fastest: measured once, in about two seconds, and kept in a file.

Whether bf16 pays cannot be told from a processor's flags: with AVX512-BF16 some compute it at less than half the rate
of fp32, others at twice; with AMX it is three times as fast. Nor can the memory format or the attention be guessed.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
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
_BATCH, _SIDE, _TEXT = 8, 16, 64


@dataclass(frozen=True)
class Way:
    """One way to compute a UNet."""

    precision: Precision = "fp32"
    layout: Layout = "contiguous"
    attention: Attention = "fused"

    def within(self, latent_tokens: int) -> "Way":
        """The same, with fused attention where the classic one would need too much memory."""
        fused = latent_tokens > CLASSIC_ATTENTION_TOKENS
        return Way(self.precision, self.layout, "fused") if fused else self


def fastest(task: Task, measured: dict[Way, float], precision: str = "auto") -> Way:
    """The way with the lowest figure, among those of a precision."""
    allowed = [way for way in measured if precision in ("auto", way.precision)]
    return min(allowed, key=lambda way: measured[way])


def measure_cpu(task: Task, keep: Path | None = None) -> dict[Way, float]:
    """Milliseconds of one pass of a small UNet for every way, drawing or training, on this machine's CPU.

    With the folder `keep`, figures of the same processor, torch and number of threads are read from it, or left there.
    """
    file = keep / f"{machine()}.json" if keep else None
    known = _read(file)
    if task not in known:
        measured = {task: [[asdict(way), figure] for way, figure in _measure(task).items()]}
        known = _read(file) | measured  # another process may have measured the other task meanwhile
        if file:
            _write(file, known)
    return {Way(**way): float(figure) for way, figure in known[task]}


def machine() -> str:
    """Names the processor, torch's version and its number of threads."""
    parts = (_processor(), torch.__version__, str(torch.get_num_threads()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def apply(unet: Any, way: Way) -> None:
    """Set a UNet's attention and memory format; its precision is the caller's to set."""
    unet.set_attn_processor(AttnProcessor() if way.attention == "classic" else AttnProcessor2_0())
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    to: Any = torch.nn.Module.to
    to(unet, memory_format=formats[way.layout])


def _measure(task: Task) -> dict[Way, float]:
    """The ways take turns, so that a neighbour's load falls on all of them; the best of each counts."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")  # fp16 is slow on every CPU
    ways = [Way(*way) for way in product(precisions, get_args(Layout), get_args(Attention))]
    passes = {way: _pass_of(task, way) for way in ways}
    best = dict.fromkeys(passes, float("inf"))
    for turn in range(REPEATS + 1):
        for way, run in passes.items():
            began = time.perf_counter()
            run()
            best[way] = min(best[way], 1000 * (time.perf_counter() - began)) if turn else best[way]
    return {way: round(figure, 2) for way, figure in best.items()}


def _pass_of(task: Task, way: Way) -> Callable[[], None]:
    unet = _small_unet()
    apply(unet, way)
    dtype = torch.bfloat16 if way.precision == "bf16" else torch.float32
    latents, text = torch.zeros(_BATCH, 4, _SIDE, _SIDE), torch.zeros(_BATCH, 77, _TEXT)
    steps = torch.full((_BATCH,), 500)

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
