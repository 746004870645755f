"""What every training script shares: seeds, schedule, averaged weights, checkpoints that survive a kill, logging."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def generator_for(*names: object) -> np.random.Generator:
    """A numpy generator whose seed is the hash of `names`: step 100 draws the same, resumed or not."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def seed_torch(*names: object) -> None:
    """Seed torch's global generator from the hash of `names`."""
    torch.manual_seed(int(generator_for(*names).integers(2**62)))


def prepare_cpu(threads: int) -> None:
    """Denormals slow small convolutions down tenfold."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up to `peak`, then half a cosine down to 2 % of it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


class Averaged:
    """An exponential moving average of a module's parameters, warmed up so that early steps do not linger."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.shadow = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.shadow[name].lerp_(value, 1 - decay)
            else:
                self.shadow[name].copy_(value)


def save_checkpoint(
    path: Path,
    step: int,
    modules: dict[str, nn.Module],
    averages: dict[str, Averaged],
    optimizer: torch.optim.Optimizer,
) -> None:
    """One safetensors file, renamed into place: weights, averages, optimizer state and the step in its header."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors |= {f"module/{name}/{key}": value for key, value in module.state_dict().items()}
    for name, average in averages.items():
        tensors |= {f"average/{name}/{key}": value for key, value in average.shadow.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(
        {key: value.detach().clone().contiguous() for key, value in tensors.items()},
        partial,
        metadata={"step": str(step), "threads": str(torch.get_num_threads())},
    )
    partial.replace(path)


def load_checkpoint(
    path: Path, modules: dict[str, nn.Module], averages: dict[str, Averaged], optimizer: torch.optim.Optimizer
) -> int:
    """Restore what `save_checkpoint` wrote; 0 if there is no checkpoint yet, else the step to go on from."""
    if not path.is_file():
        return 0
    with safe_open(path, "pt") as stored:
        step = int(stored.metadata()["step"])
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}
    for name, module in modules.items():
        module.load_state_dict(_under(tensors, f"module/{name}/"))
    for name, average in averages.items():
        average.shadow = _under(tensors, f"average/{name}/")
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in _under(tensors, "optimizer/").items():
        index, field = key.split("/", 1)
        states.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return step


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def log_every(path: Path, every: int) -> Callable[..., None]:
    """A function `log(step, samples, **values)` that averages values and writes a JSON line every `every` steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sums: dict[str, float] = {}
    state = {"count": 0, "samples": 0, "since": time.monotonic()}

    def log(step: int, samples: int, **values: float) -> None:
        state["count"] += 1
        state["samples"] += samples
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value
        if (step + 1) % every:
            return
        elapsed = time.monotonic() - state["since"]
        line = {"step": step + 1} | {name: round(total / state["count"], 5) for name, total in sums.items()}
        text = json.dumps(line | {"samples_per_second": round(state["samples"] / elapsed, 1)})
        print(text, flush=True)
        with path.open("a") as stream:
            stream.write(text + "\n")
        sums.clear()
        state.update(count=0, samples=0, since=time.monotonic())

    return log


def to_float(pixels: np.ndarray) -> Tensor:
    """(n, h, w, 3) uint8 → (n, 3, h, w) float32 in [-1, 1], channels last in memory."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_bytes(images: Tensor) -> np.ndarray:
    """(n, 3, h, w) in about [-1, 1] → (n, h, w, 3) uint8."""
    scaled = images.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def save_grid(path: Path, images: np.ndarray, columns: int, zoom: int = 2) -> None:
    """Write (n, h, w, 3) uint8 images as one PNG with `columns` a row."""
    n, height, width, _ = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + 2), columns * (width + 2), 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        sheet[top : top + height, left : left + width] = image
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(sheet)
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(path)
