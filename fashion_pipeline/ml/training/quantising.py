"""Frozen weights in eight or four bits, so that a larger base fits beside what learns (Dettmers et al., 2023)."""

from typing import Any

import torch

from fashion_pipeline.core.training.recipe import Quantisation
from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.training.optimizers import extra
from fashion_pipeline.ml.training.results import TrainingError

_MEND = "pip install 'fashion-pipeline[quantised]', or set quantize to none"


def quantise(model: torch.nn.Module, kind: Quantisation, device: Device) -> None:
    """Bring the weights of a model's linear layers that do not learn to int8, fp8 or nf4, in place, and keep the rest.

    They are brought back to the device's precision layer by layer as each computes. int8 has a scale for each output,
    fp8 one as well, nf4 one for 64 weights. Raises TrainingError where a library is missing or the device knows none.
    """
    if kind == "none":
        return
    if device.type == "mps":
        raise TrainingError(f"quantize is {kind}, which the libraries do not know on {device.name}: set it to none")
    if kind == "nf4":
        _to_four_bits(model, extra("bitsandbytes", f"quantize ({kind})", _MEND), device)
        return
    library = extra("torchao.quantization", f"quantize ({kind})", _MEND)
    config = library.Int8WeightOnlyConfig() if kind == "int8" else library.Float8WeightOnlyConfig()
    library.quantize_(model, config, filter_fn=lambda module, _name: _is_frozen(module))


def _is_frozen(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear) and not module.weight.requires_grad


def _to_four_bits(model: torch.nn.Module, library: Any, device: Device) -> None:
    layers = [(name, module) for name, module in model.named_modules() if _is_frozen(module)]
    for name, layer in layers:
        above, _, last = name.rpartition(".")
        packed = library.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=device.dtype,
            quant_type="nf4",
        )
        packed.weight = library.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
        packed.bias = layer.bias
        setattr(model.get_submodule(above), last, packed.to(device.name))
