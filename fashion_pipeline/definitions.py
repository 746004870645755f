"""The one entry point that Dagster loads. It only assembles."""

import dagster as dg

from fashion_pipeline.defs.jobs import ASSETS, BY_HAND, JOBS
from fashion_pipeline.defs.schedules import weekly_retraining
from fashion_pipeline.defs.sensors import new_photos
from fashion_pipeline.resources.executor import one_process
from fashion_pipeline.resources.gpu import Gpu
from fashion_pipeline.resources.models import ModelsResource
from fashion_pipeline.resources.store import StoreResource
from fashion_pipeline.settings import read_settings

_settings = read_settings()
_gpu = Gpu(device=_settings.device, precision=_settings.precision)

defs = dg.Definitions(
    assets=(*ASSETS, *BY_HAND),
    jobs=JOBS,
    schedules=[weekly_retraining],
    sensors=[new_photos],
    resources={
        "store": StoreResource(root=str(_settings.data)),
        "gpu": _gpu,
        "models": ModelsResource(profile=_settings.profile, gpu=_gpu, root=str(_settings.data)),
    },
    executor=one_process,
)
