"""What an adapter adds to one layer: LoRA, LoHa and LoKr, each of them with DoRA's magnitudes or without."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


class AdapterError(ValueError):
    """A file that is no adapter that is read, or none for this model; the message says why."""


class MisfitError(AdapterError):
    """An adapter of another model."""


@dataclass
class Addition:
    """The tensors that a file has for one layer."""

    name: str
    """As the file calls the layer."""
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    """By what they are: `down` and `up` of a LoRA (`mid` with a Tucker decomposition), `hada_…` of a LoHa, `lokr_…` of
    a LoKr; perhaps `alpha`, `dora_scale` or `lora_magnitude_vector`."""

    @property
    def rank(self) -> int | None:
        """The rank of its products; None for a LoKr of two whole factors, which has no scale either."""
        for name in ("down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
            if name in self.tensors:
                return int(self.tensors[name].shape[0])
        return None

    def require_whole(self) -> None:
        """Raise AdapterError for a file that has only some of the tensors which a layer needs."""
        there = self.tensors.keys()
        lokr = all(there & whole or halves <= there for whole, halves in _FACTORS)
        if not ({"down", "up"} <= there or there >= _HADAMARD or lokr):
            raise AdapterError(f"only one half of what is added to a layer is there ({self.name})")

    def scale(self, settings: "Settings") -> float:
        """alpha / rank, or alpha / sqrt(rank) of an rsLoRA. Without an alpha it is the rank."""
        rank = self.rank
        if rank is None:  # LyCORIS and ComfyUI scale no LoKr of two whole factors, peft does
            return settings.alpha / settings.rank if settings.rank and settings.alpha is not None else 1.0
        if "alpha" in self.tensors:
            return float(self.tensors["alpha"]) / rank
        if settings.alpha is None:
            return 1.0
        return settings.alpha / (math.sqrt(rank) if settings.rslora else rank)

    def change(self, weight: torch.Tensor, scale: float) -> torch.Tensor:
        """(rows, …) weights of a layer → what they change by. Raises MisfitError for a layer of another size."""
        difference = self._difference(weight)
        if difference is None or difference.numel() != weight.numel():
            sizes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in self.tensors.items() if tensor.dim())
            raise MisfitError(f"{self.name} is for a layer of another size: {sizes} do not make {tuple(weight.shape)}")
        change = scale * difference.reshape(weight.shape).to(weight)
        lengths = self.tensors.get("lora_magnitude_vector", self.tensors.get("dora_scale"))
        return change if lengths is None else self._with_lengths(weight + change, lengths) - weight

    def _difference(self, weight: torch.Tensor) -> torch.Tensor | None:
        """The product, before its scale; None where the factors do not fit each other."""
        try:
            if "down" in self.tensors:
                return _low_rank(self.tensors)
            if "hada_w1_a" in self.tensors:
                return _product(self.tensors, "hada_w1", "hada_t1") * _product(self.tensors, "hada_w2", "hada_t2")
            return _kronecker(self.tensors)
        except RuntimeError:
            return None

    def _with_lengths(self, changed: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """DoRA (Liu et al., 2024): each row, or column where LyCORIS trained so, at the length that was learnt."""
        by_column = "dora_scale" in self.tensors and lengths.shape[0] == 1 != len(changed)
        across = 1 if by_column else 0
        if lengths.numel() != changed.shape[across]:
            raise MisfitError(
                f"{self.name} is for a layer of another size: {lengths.numel()} lengths for {tuple(changed.shape)}"
            )
        norms = changed.transpose(0, across).flatten(1).norm(dim=1)
        shape = [-1 if at == across else 1 for at in range(changed.dim())]
        lengthened: torch.Tensor = changed * (lengths.flatten().to(norms) / norms).reshape(shape)
        return lengthened


@dataclass(frozen=True)
class Settings:
    """What a file tells of the adapter of one layer besides its tensors."""

    alpha: float | None = None
    rank: int | None = None
    rslora: bool = False

    @classmethod
    def of(cls, told: Mapping[str, Any], part: str, layer: str) -> "Settings":
        """From an adapter's configuration as peft writes it, the part in front of each name."""
        alpha = _for_layer(
            told, part, layer, "alpha_pattern", told.get(f"{part}.lora_alpha", told.get(f"{part}.alpha"))
        )
        rank = _for_layer(told, part, layer, "rank_pattern", told.get(f"{part}.r"))
        return cls(
            None if alpha is None else float(alpha),
            None if rank is None else int(rank),
            bool(told.get(f"{part}.use_rslora")),
        )


_HADAMARD = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
_FACTORS = (({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"}), ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"}))
"""Of each of a LoKr's factors: whole, or as the halves of a product."""


def _for_layer(told: Mapping[str, Any], part: str, layer: str, patterns: str, usual: Any) -> Any:
    of_layers = dict(told.get(f"{part}.{patterns}") or {})
    return next((own for end, own in of_layers.items() if layer == end or layer.endswith(f".{end}")), usual)


def _low_rank(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """B A; of a convolution A has the kernel and B is 1 x 1, or the kernel stands between them (LoCon with Tucker)."""
    down, up = tensors["down"], tensors["up"]
    if "mid" in tensors:
        down = torch.einsum("mn...,ni->mi...", tensors["mid"], down.flatten(1))
    return up.flatten(1) @ down.flatten(1)


def _product(tensors: Mapping[str, torch.Tensor], halves: str, core: str) -> torch.Tensor:
    """a b, or with the kernel between them."""
    first, second = tensors[f"{halves}_a"], tensors[f"{halves}_b"]
    if core not in tensors:
        return first @ second
    return torch.einsum("ij...,io,jr->or...", tensors[core], first, second).flatten(1)


def _kronecker(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The Kronecker product of a small and a large matrix; of a convolution the large one has the kernel."""
    small = tensors["lokr_w1"] if "lokr_w1" in tensors else _product(tensors, "lokr_w1", "lokr_t1")
    large = tensors["lokr_w2"] if "lokr_w2" in tensors else _product(tensors, "lokr_w2", "lokr_t2")
    return torch.kron(small.contiguous(), large.flatten(1).contiguous())
