"""One process a run, which can be cancelled also while it waits for its turn on the device."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import dagster as dg
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import inner_plan_execution_iterator
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor
from dagster._utils.interrupts import check_captured_interrupt

from fashion_pipeline.store.storage.locks import interrupt_work

RETRY_SECONDS = 0.5

LEAST_SECONDS, LONGEST_SECONDS = 0.05, 2.0
"""Of a sleep between two looks at the pool."""


@dg.executor(name="one_process", requirements=[])
def one_process(init_context: dg.InitExecutorContext) -> InProcessExecutor:
    """All steps in the process of the run, as Dagster's `in_process_executor`; but waiting for a pool can be cancelled.

    Dagster's own executor notes an interrupt while it waits and acts on it when the next step starts, which is when
    the pool frees.
    """
    return _OneProcess(RetryMode.ENABLED)


class _Slots(InstanceConcurrencyContext):
    """Dagster's own, but for how long a run sleeps that waits for a pool.

    Dagster's takes the least of that and 0: every run that waits keeps a processor busy, which those that work lack.
    And it asks the pool ever more seldom, up to every 15 seconds, for which the device is idle.
    """

    def interval_to_next_pending_claim_check(self) -> float:
        """Seconds until the pool is asked again."""
        now = time.time()
        for step, at in self._pending_timeouts.items():
            self._pending_timeouts[step] = min(at, now + LONGEST_SECONDS)
        waits = [at - now for at in self._pending_timeouts.values()]
        return max(LEAST_SECONDS, min(waits)) if waits else 0.0


class _OneProcess(InProcessExecutor):
    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        message = f"All steps run in this process (pid: {os.getpid()})"
        details = EngineEventData.in_process(os.getpid(), execution_plan.step_keys_to_execute)
        yield DagsterEvent.engine_event(plan_context, message, event_specific_data=details)
        yield from ExecuteRunWithPlanIterable(
            execution_plan=plan_context.execution_plan,
            iterator=_iterate,
            execution_context_manager=PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=plan_context.retry_mode,
                execution_plan=plan_context.execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                raise_on_error=plan_context.raise_on_error,
                output_capture=plan_context.output_capture,
                step_dependency_config=self.step_dependency_config,
            ),
        )


def _iterate(job_context: PlanExecutionContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
    with (
        _Slots(job_context.instance, job_context.dagster_run) as slots,
        _interrupted_while_waiting(),
    ):
        yield from inner_plan_execution_iterator(job_context, execution_plan, slots)


@contextmanager
def _interrupted_while_waiting() -> Iterator[None]:
    """An interrupt that comes while the run waits for a pool ends it; any other goes to Dagster's own handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    dagsters = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: FrameType | None) -> None:
        if _waits(frame):
            raise dg.DagsterExecutionInterruptedError
        if callable(dagsters):
            dagsters(number, frame)
            _again_if_unheard()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, dagsters)


def _waits(frame: FrameType | None) -> bool:
    """Whether a frame lies in Dagster's sleep between two looks at the pool."""
    while frame is not None and frame.f_code is not ActiveExecution.sleep_til_ready.__code__:
        frame = frame.f_back
    return frame is not None


def _again_if_unheard() -> None:
    """Between two sleeps the interrupt is only noted: send it again unless a step has acted on it meanwhile."""

    def send() -> None:
        if check_captured_interrupt():
            interrupt_work()

    timer = threading.Timer(RETRY_SECONDS, send)
    timer.daemon = True
    timer.start()
