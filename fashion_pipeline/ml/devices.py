"""Where models run and in which precision: one decision, made once, with a message that names the mend."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import diffusers
import torch
import transformers

from fashion_pipeline.ml.tuning import Attention, ComputeConfig, Layout, Precision, Task, fastest, measure_cpu

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_MENDS = {
    "cuda": "install a CUDA build of torch and a driver, or ask for 'auto' or 'cpu'",
    "mps": "use an Apple-silicon build of torch, or ask for 'auto' or 'cpu'",
}


_NO_MEMORY = (
    "can't allocate memory",  # a CPU
    "out of memory",  # CUDA's driver, MPS, bitsandbytes
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "insufficient memory",
    "not enough memory",
)
"""How libraries say that memory ran out, in lower case."""


@dataclass(frozen=True)
class Device:
    """A device and the way of the heavy computations on it."""

    name: str
    """What torch calls it: cpu, mps, cuda, cuda:1."""
    precision: Precision
    description: str = ""
    """For people: the device's own name."""
    layout: Layout = "contiguous"
    attention: Attention = "fused"

    @property
    def type(self) -> str:
        """The device without its index: cpu, mps or cuda."""
        return self.name.partition(":")[0]

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of `precision`."""
        return _DTYPES[self.precision]

    @property
    def compute_config(self) -> ComputeConfig:
        """How a UNet is computed on it."""
        return ComputeConfig(self.precision, self.layout, self.attention)

    def computing(self) -> dict[str, str]:
        """What changes the last bits of what is computed: for the identity of images and trainings."""
        kind = {} if self.type == "cpu" else {"device": self.type}  # which earlier versions did not tell
        return kind | {
            "precision": self.precision,
            "layout": self.layout,
            "attention": self.attention,
            "torch": torch.__version__.partition("+")[0],
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
        }


def pick_device(
    device: str = "auto", precision: str = "auto", task: Task = "drawing", keep: Path | None = None
) -> Device:
    """The device asked for, or the best there is (cuda, mps, cpu), and the fastest way to compute a task on it.

    `precision` is auto, fp32, bf16 or fp16; auto is bf16 on a GPU that computes in it, fp16 on others. On a CPU
    precision, memory format and attention are measured (`tuning.measure_cpu`), once for each machine with a folder
    `keep`, and subnormal numbers are flushed to zero, which is faster. Raises ValueError where device or precision is
    not to be had.
    """
    name = _best() if device == "auto" else device
    _require(name)
    _require_precision(name, precision)
    if name.startswith("cuda"):
        torch.backends.cudnn.allow_tf32 = False  # fp32 is fp32, in convolutions as well: 10 bits are lost otherwise
        torch.backends.cuda.matmul.allow_tf32 = False
    if not name.startswith("cpu"):
        return Device(name, _gpu_precision(name, precision), _describe(name))
    torch.set_flush_denormal(True)
    config = fastest(task, measure_cpu(task, keep), precision)
    return Device(name, config.precision, _describe(name), config.layout, config.attention)


def cuda_devices() -> int:
    """How many CUDA devices torch sees."""
    return torch.cuda.device_count()


def free_memory(device: Device) -> None:
    """Give the memory of what was deleted back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def forget_device_peak() -> None:
    """Begin to measure anew what CUDA devices hold at most."""
    for card in range(torch.cuda.device_count()):
        torch.cuda.reset_peak_memory_stats(card)


def device_peak() -> int | None:
    """The most bytes that a CUDA device held at once since then; None without one."""
    cards = range(torch.cuda.device_count())
    return max((int(torch.cuda.max_memory_allocated(card)) for card in cards), default=None)


def peak_memory(device: Device) -> int:
    """The most bytes that were used at once since the process began: of a CUDA device its own, else the process's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device.name))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def out_of_memory(error: Exception) -> bool:
    """Whether a device or the machine had no memory left, whichever library says so."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(each in text for each in _NO_MEMORY)


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


def _require_precision(name: str, asked: str) -> None:
    if asked not in ("auto", *_DTYPES):
        raise ValueError(f"precision {asked!r} is not known: ask for 'auto', 'fp32', 'bf16' or 'fp16'")
    if asked == "fp16" and name.startswith("cpu"):
        raise ValueError(
            "precision 'fp16' asked for on a CPU, which computes it slowly: ask for 'auto', 'bf16' or 'fp32'"
        )


def _gpu_precision(name: str, asked: str) -> Precision:
    if asked != "auto":
        return cast(Precision, asked)
    computes_bf16 = name.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if computes_bf16 else "fp16"


def _describe(name: str) -> str:
    if name.startswith("cuda"):
        return f"{name} ({torch.cuda.get_device_name(name)})"
    return f"{name} ({torch.get_num_threads()} threads)" if name == "cpu" else name
