"""The models of the profile as a Dagster resource."""

from pathlib import Path

import dagster as dg

from fashion_pipeline.resources.gpu import Gpu
from fashion_pipeline.stages.models import Models


class ModelsResource(dg.ConfigurableResource[Models]):
    """Lends the models of a profile on a device."""

    profile: str
    """A profile's name, or the path of a profile file."""
    gpu: dg.ResourceDependency[Gpu]
    root: str
    """Absolute path of the data root, where it is kept how this machine computes fastest."""

    def create_resource(self, context: dg.InitResourceContext | None = None) -> Models:
        """The models; nothing is loaded yet."""
        return Models(self.profile, self.gpu.device, self.gpu.precision, Path(self.root) / "machine")
