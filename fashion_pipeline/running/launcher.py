"""The run launcher of the data root's instance: Dagster's, and it knows whether a run's process still lives."""

from dagster import DagsterRun
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus

from fashion_pipeline.running.liveness import is_dead
from fashion_pipeline.settings import read_settings
from fashion_pipeline.store.store import Store


class WatchedRunLauncher(DefaultRunLauncher):
    """Lets the daemon notice a run whose process was killed, mark it as failed and free its slots.

    `DefaultRunLauncher` has no health check. This one looks at the lock that each run holds (`StoreResource`): the
    operating system releases it when the process ends, whatever ended it. dagster.yaml names this class, and how often
    the daemon asks it.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Makes the daemon's run monitoring ask."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a run that has started is still there."""
        store = Store(read_settings().data)
        if is_dead(self._instance, store, run):
            return CheckRunHealthResult(WorkerStatus.FAILED, "its process is gone")
        return CheckRunHealthResult(WorkerStatus.RUNNING)
