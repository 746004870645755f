"""Where models run and in which precision: one decision, made once, with a message that names the mend."""

from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_MENDS = {
    "cuda": "install a CUDA build of torch and a driver, or ask for 'auto' or 'cpu'",
    "mps": "use an Apple-silicon build of torch, or ask for 'auto' or 'cpu'",
}


@dataclass(frozen=True)
class Device:
    """A device and the precision of the heavy computations on it."""

    name: str
    """What torch calls it: cpu, mps, cuda, cuda:1."""
    precision: Precision
    description: str
    """For people: the device's own name, and the precision."""

    @property
    def type(self) -> str:
        """The device without its index: cpu, mps or cuda."""
        return self.name.partition(":")[0]

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of `precision`."""
        return _DTYPES[self.precision]


def pick_device(device: str = "auto", precision: str = "auto") -> Device:
    """The device asked for, or the best there is (cuda, mps, cpu), and its precision.

    `precision` is auto, fp32, bf16 or fp16; auto is bf16 where the hardware computes in it, fp16 on other GPUs, else
    fp32. On a CPU subnormal numbers are flushed to zero, which is faster. Raises ValueError where device or precision
    is not to be had.
    """
    name = _best() if device == "auto" else device
    _require(name)
    kind = name.partition(":")[0]
    if kind == "cpu":
        torch.set_flush_denormal(True)
    chosen = _precision(kind, precision)
    return Device(name, chosen, f"{_describe(name)}, {chosen}")


def free_memory(device: Device) -> None:
    """Give the memory of what was deleted back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _require(name: str) -> None:
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdecimal()):
        raise ValueError(f"device {name!r} is not known: ask for 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'")
    seen = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if not seen:
        raise ValueError(f"device {name!r} asked for, but torch sees none: {_MENDS[kind]}")
    if int(index or 0) >= seen:
        raise ValueError(
            f"device {name!r} asked for, but torch sees only {seen}: ask for '{kind}:0' to '{kind}:{seen - 1}'"
        )


def _precision(kind: str, asked: str) -> Precision:
    if asked == "auto":
        if kind == "cpu":
            return "bf16" if _cpu_computes_bf16() else "fp32"
        return "bf16" if kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if asked not in _DTYPES:
        raise ValueError(f"precision {asked!r} is not known: ask for 'auto', 'fp32', 'bf16' or 'fp16'")
    if asked == "fp16" and kind == "cpu":
        raise ValueError(
            "precision 'fp16' asked for on a CPU, which computes it slowly: ask for 'auto', 'bf16' or 'fp32'"
        )
    return asked


def _cpu_computes_bf16() -> bool:
    """Whether the CPU multiplies in bf16 (AVX512-BF16 or AMX), not merely stores it."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _describe(name: str) -> str:
    if name.startswith("cuda"):
        return f"{name} ({torch.cuda.get_device_name(name)})"
    return f"{name} ({torch.get_num_threads()} threads)" if name == "cpu" else name
