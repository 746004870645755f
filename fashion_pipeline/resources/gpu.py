"""The device that heavy steps run on, and the pool that lets one of them use it at a time."""

from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from fashion_pipeline.ml.devices import Device

POOL = "gpu"
"""Name of the Dagster pool of every step that needs the device; its limit is set in dagster.yaml."""


class Gpu(dg.ConfigurableResource):
    """Chooses device and precision; the same steps run on a GPU or, without one, on the CPU."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:<n> or mps"""
    precision: str = "auto"
    """auto, fp32, bf16 or fp16"""

    def pick(self) -> "Device":
        """The device to use. Raises an error that names the mend where the one asked for is missing."""
        from fashion_pipeline.ml.devices import pick_device

        return pick_device(self.device, self.precision)
