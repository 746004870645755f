"""The device that heavy steps run on, and the pool that lets one of them use it at a time."""

import dagster as dg

POOL = "gpu"
"""Name of the Dagster pool of every step that needs the device; its limit is set in dagster.yaml."""


class Gpu(dg.ConfigurableResource):
    """Device and precision; the same steps run on a GPU or, without one, on the CPU."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:<n> or mps"""
    precision: str = "auto"
    """auto, fp32, bf16 or fp16"""
