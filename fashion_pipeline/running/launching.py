"""Launching runs through the Dagster instance and following them: the UI shows and cancels them like its own."""

import logging
import math
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from fashion_pipeline.core.progress import progress_in
from fashion_pipeline.settings import read_settings
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.storage.locks import holding, is_held, require_free

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun, EventLogEntry
    from dagster._core.workspace.context import WorkspaceRequestContext

    from fashion_pipeline.stages.publishing.tracing import Use
    from fashion_pipeline.store.store import Store

LOCATION = "fashion_pipeline"
POLL_SECONDS = 0.3
CANCELLING = 20.0
"""Seconds that a cancelled run is waited for; a training writes a checkpoint first."""
DIED = "its process died without a word (killed, or out of memory): run it again, it goes on where it stopped"
QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
"""A run's events are followed through the event log; its console would print them a second time."""


@dataclass(frozen=True)
class Event:
    """Something that a run reports."""

    kind: str
    """planned (a run), started, finished, skipped or failed (a step), message, progress, check"""
    step: str
    text: str
    done: int = 0
    """Of a progress: how much of `total`."""
    total: int = 0
    """Of a progress; of a planned run its steps."""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    run_id: str
    success: bool
    errors: tuple[str, ...]
    """What went wrong, in the words of the exception."""


class Launcher:
    """Starts jobs of the code location; each run is a process of its own."""

    def __init__(
        self, instance: "DagsterInstance", workspace: "WorkspaceRequestContext", store: "Store", command: str
    ) -> None:
        """`command` names the lock that the calling process holds; its runs end when it is gone."""
        self.instance, self._workspace, self._store, self._command = instance, workspace, store, command
        self._steps = 0

    def launch(
        self,
        job: str,
        style: str,
        run_config: Mapping[str, Any],
        tags: Mapping[str, str],
        follow: Callable[[Event], None],
    ) -> Ended:
        """Start a job for a style and report its events until it ends.

        Ctrl-C, SIGTERM and a closed terminal cancel the run, wait for its end and raise KeyboardInterrupt. Raises
        LockedError that says who is at work on the style already.
        """
        self._wait_for_ending_runs(style)
        require_free(self._store.locks.style(style), f"style {style!r}")  # before a process is started for nothing
        run_id = self._create(job, style, {"loggers": QUIET} | dict(run_config), tags)
        follow(Event("planned", "", job, total=self._steps))
        self.instance.launch_run(run_id, self._workspace)
        with interruptions():
            try:
                return self._follow(run_id, follow)
            except KeyboardInterrupt:
                self.instance.run_launcher.terminate(run_id)
                self._follow(run_id, follow, until=time.monotonic() + CANCELLING)
                raise

    def submit(self, job: str, style: str, run_config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Put a run into the queue, from which the daemon takes it; returns its id. Nobody follows it."""
        run_id = self._create(job, style, run_config, tags, followed=False)
        self.instance.submit_run(run_id, self._workspace)
        return run_id

    def _wait_for_ending_runs(self, style: str) -> None:
        """Give a run of the style that is being cancelled, or whose command is gone, the time to end."""
        from dagster import DagsterRunStatus, RunsFilter

        from fashion_pipeline.running.liveness import command_of

        def ending(run: "DagsterRun") -> bool:
            command = command_of(run)
            return run.status == DagsterRunStatus.CANCELING or (
                command != "" and not self._store.locks.follows(command)
            )

        under_way = RunsFilter(
            statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING], tags={"dagster/partition": style}
        )
        until = time.monotonic() + CANCELLING
        while is_held(self._store.locks.style(style)) and time.monotonic() < until:
            if not any(ending(run) for run in self.instance.get_runs(under_way)):
                return
            time.sleep(POLL_SECONDS)

    def _create(
        self, job: str, style: str, run_config: Mapping[str, Any], tags: Mapping[str, str], *, followed: bool = True
    ) -> str:
        from dagster._core.definitions.selector import JobSubsetSelector

        from fashion_pipeline.running.liveness import COMMAND

        location = self._workspace.get_code_location(LOCATION)
        repository = next(iter(location.get_repositories().values()))
        remote = location.get_job(JobSubsetSelector(LOCATION, repository.name, job, op_selection=None))
        plan = location.get_execution_plan(
            remote, run_config, step_keys_to_execute=None, known_state=None, instance=self.instance
        ).execution_plan_snapshot
        self._steps = len(plan.step_keys_to_execute)
        run = self.instance.create_run(
            job_name=job,
            run_id=None,
            run_config=run_config,
            resolved_op_selection=remote.resolved_op_selection,
            step_keys_to_execute=plan.step_keys_to_execute,
            op_selection=None,
            status=None,
            root_run_id=None,
            parent_run_id=None,
            tags={**tags, "dagster/partition": style} | ({COMMAND: self._command} if followed else {}),
            job_snapshot=remote.job_snapshot,
            execution_plan_snapshot=plan,
            parent_job_snapshot=remote.parent_job_snapshot,
            remote_job_origin=remote.get_remote_origin(),
            job_code_origin=remote.get_python_origin(),
            asset_selection=None,
            asset_check_selection=None,
            asset_graph=repository.asset_graph,
        )
        return str(run.run_id)

    def _follow(self, run_id: str, follow: Callable[[Event], None], until: float = math.inf) -> Ended:
        errors: list[str] = []
        cursor: str | None = None
        while True:
            run = self.instance.get_run_by_id(run_id)
            records = self.instance.get_records_for_run(run_id, cursor=cursor)
            cursor = records.cursor
            for record in records.records:
                for event in _events(record.event_log_entry, self._ahead):
                    if event.kind == "failed" and event.text in errors:
                        continue
                    errors += [event.text] if event.kind == "failed" else []
                    follow(event)
            if run is None or (run.is_finished and not records.records) or time.monotonic() > until:
                return Ended(run_id, bool(run and run.is_success), tuple(dict.fromkeys(errors)))
            time.sleep(POLL_SECONDS)

    def _ahead(self) -> str:
        """Who has the device."""
        from fashion_pipeline.running.runs import POOL

        info = self.instance.event_log_storage.get_concurrency_info(POOL)
        runs = [self.instance.get_run_by_id(run_id) for run_id in sorted(info.active_run_ids)]
        named = [f"run {run.run_id[:8]} of style {run.tags.get('dagster/partition')!r}" for run in runs if run]
        return " and ".join(named) or "its turn"


@contextmanager
def interruptions() -> Iterator[None]:
    """SIGTERM and the hangup of a terminal raise KeyboardInterrupt inside the block, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def launcher(store: "Store") -> Iterator[Launcher]:
    """A launcher on the instance of DAGSTER_HOME, with the code location loaded and dead runs buried."""
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import ModuleTarget

    from fashion_pipeline.running.liveness import bury_dead_runs

    target = ModuleTarget("fashion_pipeline.definitions", None, None, LOCATION)
    with (
        opened_instance(store) as instance,
        WorkspaceProcessContext(instance, target, code_server_log_level="WARNING") as process,
    ):
        bury_dead_runs(instance, store)
        command = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            with store.locks.following(command):
                yield Launcher(instance, process.create_request_context(), store, command)
        finally:
            bury_dead_runs(instance, store)


@contextmanager
def opened_instance(store: "Store") -> Iterator["DagsterInstance"]:
    """The Dagster instance of the data root. Its files are made by one process at a time: two at once collide.

    Raises StorageError or SettingsError for a settings file, or one of pods, with which Dagster could load nothing, and
    StorageError for a database that does not answer.
    """
    from dagster import DagsterInstance
    from sqlalchemy.exc import OperationalError

    from fashion_pipeline.defs.automation.schedules import require_crons

    require_crons(store.preferences.read())
    logging.getLogger("dagster").setLevel(logging.WARNING)
    with ExitStack() as open_ones:
        with holding(store.files.inside("locks", "instance"), "the Dagster instance", "a command", wait=60.0):
            try:
                instance = open_ones.enter_context(DagsterInstance.get())
                instance.get_runs(limit=1)
            except Exception as error:
                refused = error if isinstance(error, OperationalError) else error.__cause__
                if not isinstance(refused, OperationalError):
                    raise
                message = " ".join(str(refused.orig).split())
                raise StorageError(
                    f"the database of the Dagster instance cannot be used ({message}): start it, make room, or correct "
                    "FASHION_PIPELINE_DATABASE"
                ) from None
            if pods := read_settings().kubernetes:
                _require_kubernetes(Path(pods), instance)
            instance.get_dynamic_partitions("styles")
            instance.all_instigator_state()
            _set_slots(instance)
        yield instance


def report_stale(instance: "DagsterInstance", uses: "Iterable[Use]") -> None:
    """Say on the pages of the assets, for the style's partition, that what they made used a withdrawn photo."""
    from dagster import AssetObservation, MetadataValue

    by_asset: dict[tuple[str, str], list[Use]] = {}
    for use in uses:
        by_asset.setdefault((use.asset, use.style), []).append(use)
    for (asset, style), made in by_asset.items():
        description = "\n".join(f"- {use.kind} `{use.key}`: {use.how} ({use.photos})" for use in made)
        metadata: dict[str, Any] = {
            "stale": "used a withdrawn photo: materialise again",
            "made with it": MetadataValue.md(description),
        }
        instance.report_runless_asset_event(AssetObservation(asset_key=asset, partition=style, metadata=metadata))


def _require_kubernetes(pods: Path, instance: "DagsterInstance") -> None:
    """Raise SettingsError where runs and their steps cannot be pods."""
    from fashion_pipeline.defs.automation.jobs import POOLS
    from fashion_pipeline.running.kubernetes import launcher_of, read_pods

    read_pods(pods, POOLS)
    launcher_of(instance)


def _set_slots(instance: "DagsterInstance") -> None:
    """As many heavy steps at a time as there are graphics cards; one without."""
    from fashion_pipeline.running.runs import POOL
    from fashion_pipeline.stages.drawing.models import cards

    if (count := cards()) > 1:
        instance.event_log_storage.set_concurrency_slots(POOL, count)


def _said(step: str, text: str, warning: bool) -> Event:
    """A message, or how far a step is; a warning is always a message."""
    if warning or (progress := progress_in(text)) is None:
        return Event("message", step, text)
    return Event("progress", step, text, progress.done, progress.total)


def _events(entry: "EventLogEntry", ahead: Callable[[], str]) -> Iterator[Event]:
    """What of an event log entry a person wants to see; `ahead` says for whom a step waits."""
    from fashion_pipeline.running.runs import in_words

    step = entry.step_key or ""
    event = entry.dagster_event
    if event is None:
        if step and int(entry.level) < logging.ERROR and not entry.user_message.startswith("[pipes]"):
            yield _said(step, entry.user_message, int(entry.level) >= logging.WARNING)
        return
    kinds = {"STEP_START": "started", "STEP_SUCCESS": "finished", "STEP_SKIPPED": "skipped"}
    if event.event_type_value in kinds:
        yield Event(kinds[event.event_type_value], step, "")
    elif event.event_type_value == "STEP_FAILURE":
        yield Event("failed", step, in_words(event.step_failure_data.error))
    elif event.event_type_value in ("RUN_FAILURE", "PIPELINE_FAILURE"):
        error = getattr(event.event_specific_data, "error", None)
        yield Event("failed", step, in_words(error) if error else DIED)
    elif event.event_type_value == "ENGINE_EVENT" and str(event.message).startswith("Step blocked by limit"):
        yield Event("message", step, f"waiting for {ahead()}, which has the device")
    elif event.event_type_value == "ASSET_CHECK_EVALUATION":
        evaluation = event.asset_check_evaluation_data
        if not evaluation.passed:
            figures = ", ".join(f"{name} {value.value}" for name, value in evaluation.metadata.items())
            yield Event("check", step, f"{evaluation.check_name} failed ({figures})")
