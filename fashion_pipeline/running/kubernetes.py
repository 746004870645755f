"""Each step in a Kubernetes pod of its own: only imported where FASHION_PIPELINE_KUBERNETES names a file.

The run itself is a small pod that starts those of its steps, one after the other. So a card is asked for by the steps
that need one, for as long as they need it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import yaml
from dagster._config import validate_config
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements
from dagster._core.events import DagsterEvent
from dagster._core.execution.context.system import IStepContext, PlanOrchestrationContext
from dagster._core.execution.plan.objects import StepRetryData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.step_delegating import StepDelegatingExecutor
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.executor import K8sStepHandler
from dagster_k8s.job import (
    USER_DEFINED_K8S_JOB_CONFIG_SCHEMA,
    DagsterK8sJobConfig,
    UserDefinedDagsterK8sConfig,
    construct_dagster_k8s_job,
)
from dagster_shared.error import SerializableErrorInfo

from fashion_pipeline.resources.store import working
from fashion_pipeline.running.runs import POOL
from fashion_pipeline.settings import SettingsError
from fashion_pipeline.store.store import Store

if TYPE_CHECKING:
    from dagster._core.execution.plan.state import KnownExecutionState

HEALTH_SECONDS = 10
"""Between two looks at whether the pods of a run's steps are well."""

MOST_LOST, AGAIN_SECONDS = 3, 5.0
"""How often a step is tried again whose pod is gone, and how long after that was seen."""

HEAVY, LIGHT = "heavy", "light"
"""What a file of pods calls the steps that need the device, and all others; a step's own name goes before both."""

Asks = Mapping[str, Mapping[str, Any]]
"""Step → what its pod asks for, as dagster-k8s calls it: container_config, pod_spec_config, …"""


def read_pods(path: Path, pools: Mapping[str, str | None]) -> Asks:
    """Step → what its pod asks for, of the steps in `pools`, which is step → the pool that it needs.

    Raises SettingsError that names file, section and field.
    """
    try:
        pods = yaml.safe_load(path.read_text(encoding="utf-8-sig")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        message = " ".join(str(error).split())
        raise SettingsError(f"FASHION_PIPELINE_KUBERNETES: {path} cannot be read: {message}") from error
    if not isinstance(pods, dict):
        raise SettingsError(f"{path}: it must have sections, such as {HEAVY} and {LIGHT}")
    for name, asked in pods.items():
        if name not in (HEAVY, LIGHT, *pools):
            choices = ", ".join([HEAVY, LIGHT, *sorted(pools)])
            raise SettingsError(f"{path}: {name!r} is no step: choose among {choices}")
        _require_pod(asked, f"{path}: {name}")
    by_need = {step: pods.get(HEAVY if pool == POOL else LIGHT, {}) for step, pool in pools.items()}
    return {step: pods.get(step, asked) for step, asked in by_need.items()}


def _require_pod(asked: object, where: str) -> None:
    """Raise SettingsError for what is no part of a job with one pod."""
    checked = validate_config(USER_DEFINED_K8S_JOB_CONFIG_SCHEMA, asked)
    if checked.errors:
        raise SettingsError(f"{where}: {' '.join(checked.errors[0].message.split())}")
    try:
        construct_dagster_k8s_job(
            DagsterK8sJobConfig(job_image="any", dagster_home="/any"),
            args=[],
            job_name="any",
            user_defined_k8s_config=UserDefinedDagsterK8sConfig.from_dict(asked),  # type: ignore[no-untyped-call]
        )
    except Exception as error:  # dagster-k8s and the models of Kubernetes raise what they like
        raise SettingsError(f"{where}: {' '.join(str(error).split())}") from error


def launcher_of(instance: dg.DagsterInstance) -> K8sRunLauncher:
    """What starts the pods of runs. Raises SettingsError where runs are no pods."""
    launcher = instance.run_launcher
    if not isinstance(launcher, K8sRunLauncher):
        raise SettingsError(
            "FASHION_PIPELINE_KUBERNETES is set, but runs are no pods: give dagster.yaml the run launcher "
            "dagster_k8s.K8sRunLauncher, or unset the variable"
        )
    return launcher


def step_pods(asks: Asks, root: Path) -> dg.ExecutorDefinition:
    """The executor whose steps are pods, which ask for what `read_pods` has read."""

    @dg.executor(name="step_pods", requirements=multiple_process_executor_requirements())
    def executor(init_context: dg.InitExecutorContext) -> StepPods:
        launcher = launcher_of(init_context.instance)
        handler = K8sStepHandler(
            image=None,
            container_context=K8sContainerContext(),
            load_incluster_config=launcher.load_incluster_config,
            kubeconfig_file=launcher.kubeconfig_file,
            per_step_k8s_config={step: dict(asked) for step, asked in asks.items()},
            enable_owner_references=True,
        )
        return StepPods(handler, RetryMode.ENABLED, Store(root))

    return executor


class StepPods(StepDelegatingExecutor):
    """Dagster's own, which also holds what a run holds, and tries a step again whose pod is gone.

    A step that failed has said why, and whether it may be tried again (`resources/steps.py`). One that was killed, for
    lack of memory or with its node, said nothing: it goes on in another pod with what was kept.
    """

    def __init__(self, handler: K8sStepHandler, retries: RetryMode, store: Store) -> None:
        super().__init__(
            handler, retries=retries, should_verify_step=True, check_step_health_interval_seconds=HEALTH_SECONDS
        )
        self._store = store

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Start the pods of the steps and follow them. Raises LockedError that says who is at work on the style."""
        run = plan_context.dagster_run
        with working(self._store, run, plan_context.instance, plan_context.log):
            yield from super().execute(plan_context, execution_plan)

    def log_failure_or_retry_event_after_error(
        self, step_context: IStepContext, err_info: SerializableErrorInfo, known_state: "KnownExecutionState"
    ) -> DagsterEvent:
        """Of a step that ended without a word: again in another pod."""
        tried = known_state.get_retry_state().get_attempt_count(step_context.step.key)
        lost = err_info.cls_name is None  # what a step raises has a class; that its pod is gone has none
        if lost and tried < MOST_LOST:
            again = StepRetryData(err_info, seconds_to_wait=AGAIN_SECONDS)  # type: ignore[no-untyped-call]
            return DagsterEvent.step_retry_event(step_context, again)
        return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)
