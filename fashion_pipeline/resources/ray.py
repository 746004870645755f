"""The models of the profile, spread over a Ray cluster: only imported where FASHION_PIPELINE_RAY names one."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import dagster as dg
from dagster_ray import Lifecycle, LocalRay
from dagster_ray.configs import RayDataExecutionOptions

from fashion_pipeline.resources.models import ModelsResource
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.stages.drawing.on_ray import OnRay

LOCAL = "local"
"""Instead of an address: a cluster of this machine alone, which ends with the run."""


class Cluster(LocalRay):
    """A Ray cluster that somebody else runs, or one of this machine. A run connects when it first spreads something."""

    address: str
    """`local`, `auto` (the cluster that this machine belongs to), `host:6379` or, from outside, `ray://host:10001`."""

    @classmethod
    def at(cls, address: str) -> "Cluster":
        """The cluster at an address; of one of this machine nothing listens anywhere but on the loopback interface."""
        options = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        return cls(
            address=address,
            lifecycle=Lifecycle(connect=False),
            ray_init_options=options if address == LOCAL else {},
            data_execution_options=RayDataExecutionOptions(use_polars=False),
        )

    @property
    def ray_address(self) -> str:  # type: ignore[override]
        """What `ray.init` is told."""
        return self.address

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"Ray cluster {self.address}"


class RayModelsResource(ModelsResource):
    """Lends the models of a profile; photos are embedded and images drawn on a Ray cluster."""

    cluster: dg.ResourceDependency[Cluster]

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[Models, None, None]:
        """The models; a sensor or a schedule spreads nothing."""
        with super().yield_for_execution(context) as models:
            if context.run is None:
                yield models
                return

            def connect() -> None:
                if not self.cluster.connected:
                    self.cluster.connect(context)
                    self.cluster.on_connect(context)

            workers = OnRay(models.profile_name, models.device, models.precision, models.machine, connect=connect)
            # several processes of this machine need no cluster to train together
            yield replace(
                models, workers=workers, cluster="" if self.cluster.address == LOCAL else self.cluster.address
            )
