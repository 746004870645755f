"""Frozen weights in eight or four bits, to make room for what learns (Dettmers et al., 2022 and 2023)."""

from typing import Any

import torch

from fashion_pipeline.core.training.recipe import Quantisation
from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.training.optimizers import extra
from fashion_pipeline.ml.training.results import TrainingError


def quantise(model: torch.nn.Module, kind: Quantisation, device: Device) -> None:
    """Bring the weights of a model's linear layers that do not learn to int8 or nf4, in place, and to the device.

    int8 has a scale for each output and multiplies in eight bits; nf4 has one for 64 weights and multiplies in the
    device's precision. Raises TrainingError where bitsandbytes is missing or knows nothing for the device.
    """
    if kind == "none":
        return
    if device.type == "mps":
        raise TrainingError(f"quantize is {kind}, which bitsandbytes does not know on {device.name}: set it to none")
    library = extra(
        "bitsandbytes", f"quantize ({kind})", "pip install 'fashion-pipeline[quantised]', or set quantize to none"
    ).nn
    for name, layer in [(name, module) for name, module in model.named_modules() if _is_frozen(module)]:
        above, _, last = name.rpartition(".")
        packed = _int8(library, layer) if kind == "int8" else _nf4(library, layer, device.dtype)
        packed.bias = layer.bias
        setattr(model.get_submodule(above), last, packed.to(device.name))


def _is_frozen(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear) and not module.weight.requires_grad


def _int8(library: Any, layer: Any) -> Any:
    packed = library.Linear8bitLt(
        layer.in_features, layer.out_features, bias=layer.bias is not None, has_fp16_weights=False, threshold=0.0
    )
    packed.weight = library.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    return packed


def _nf4(library: Any, layer: Any, dtype: torch.dtype) -> Any:
    packed = library.Linear4bit(
        layer.in_features, layer.out_features, bias=layer.bias is not None, compute_dtype=dtype, quant_type="nf4"
    )
    packed.weight = library.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
    return packed
