"""The one entry point that Dagster loads. It only assembles."""

from pathlib import Path

import dagster as dg

from fashion_pipeline.defs.automation.alerts import ALERTS
from fashion_pipeline.defs.automation.jobs import ASSETS, BY_HAND, CHECKS, JOBS, POOLS, preset_jobs
from fashion_pipeline.defs.automation.schedules import retraining
from fashion_pipeline.defs.automation.sensors import new_photos
from fashion_pipeline.defs.conditions import stale_assets
from fashion_pipeline.defs.lineage import with_source
from fashion_pipeline.resources.gpu import Gpu
from fashion_pipeline.resources.models import ModelsResource
from fashion_pipeline.resources.store import StoreResource
from fashion_pipeline.running.executor import one_process
from fashion_pipeline.settings import Settings, read_profile, read_settings
from fashion_pipeline.store.store import Store

_settings = read_settings()
_gpu = Gpu(device=_settings.device, precision=_settings.precision)


def _models(settings: Settings) -> ModelsResource:
    """The profile's models, in the run's own process or spread over the Ray cluster that the settings name."""
    profile, root = settings.profile, str(settings.data)
    if not settings.ray:
        return ModelsResource(profile=profile, gpu=_gpu, root=root)
    from fashion_pipeline.resources.ray import Cluster, RayModelsResource

    return RayModelsResource(profile=profile, gpu=_gpu, root=root, cluster=Cluster.at(settings.ray))


def _executor(settings: Settings) -> dg.ExecutorDefinition:
    """One process a run, or a pod a step where the settings say what those ask for."""
    if not settings.kubernetes:
        return one_process
    from fashion_pipeline.running.kubernetes import read_pods, step_pods

    return step_pods(read_pods(Path(settings.kubernetes), POOLS), settings.data)


defs = dg.Definitions(
    assets=[with_source(asset) for asset in (*ASSETS, *BY_HAND)],
    asset_checks=CHECKS,
    jobs=[*JOBS, *preset_jobs(read_profile(_settings.profile))],
    schedules=retraining(Store(_settings.data).preferences.read()),
    sensors=[new_photos, stale_assets, *ALERTS],
    resources={
        "store": StoreResource(root=str(_settings.data), apart=bool(_settings.kubernetes)),
        "gpu": _gpu,
        "models": _models(_settings),
    },
    executor=_executor(_settings),
)
