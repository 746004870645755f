"""The device that heavy steps run on."""

import dagster as dg


class Gpu(dg.ConfigurableResource):
    """Device and precision; the same steps run on a GPU or, without one, on the CPU."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:<n> or mps"""
    precision: str = "auto"
    """auto, fp32, bf16 or fp16"""
