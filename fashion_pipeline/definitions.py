"""The one entry point that Dagster loads. It only assembles."""

import dagster as dg

from fashion_pipeline.defs.alerts import ALERTS
from fashion_pipeline.defs.automation import stale_assets
from fashion_pipeline.defs.jobs import ASSETS, BY_HAND, CHECKS, JOBS, preset_jobs
from fashion_pipeline.defs.lineage import with_source
from fashion_pipeline.defs.schedules import retraining
from fashion_pipeline.defs.sensors import new_photos
from fashion_pipeline.resources.executor import one_process
from fashion_pipeline.resources.gpu import Gpu
from fashion_pipeline.resources.models import ModelsResource
from fashion_pipeline.resources.store import StoreResource
from fashion_pipeline.settings import read_profile, read_settings
from fashion_pipeline.store.store import Store

_settings = read_settings()
_gpu = Gpu(device=_settings.device, precision=_settings.precision)

defs = dg.Definitions(
    assets=[with_source(asset) for asset in (*ASSETS, *BY_HAND)],
    asset_checks=CHECKS,
    jobs=[*JOBS, *preset_jobs(read_profile(_settings.profile))],
    schedules=retraining(Store(_settings.data).preferences.read()),
    sensors=[new_photos, stale_assets, *ALERTS],
    resources={
        "store": StoreResource(root=str(_settings.data)),
        "gpu": _gpu,
        "models": ModelsResource(profile=_settings.profile, gpu=_gpu, root=str(_settings.data)),
    },
    executor=one_process,
)
