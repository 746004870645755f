"""Around every step: tries again what may pass, nothing else; tells time and memory."""

import sqlite3

import dagster as dg
import pytest

from fashion_pipeline.core.catalog.listing import CatalogError
from fashion_pipeline.definitions import defs
from fashion_pipeline.resources import steps
from fashion_pipeline.resources.steps import may_pass, step
from fashion_pipeline.stages.training.training import TrainingCrashedError, TrainingFailedError
from fashion_pipeline.store.errors import LockedError


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "WAITS", (0.01, 0.01, 0.01))


def failing(times: int, error: BaseException, tried: list[int]) -> dg.AssetsDefinition:
    @dg.asset
    @step
    def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        tried.append(context.retry_number)
        if len(tried) <= times:
            raise error
        return dg.MaterializeResult(metadata={"images drawn": 8})

    return made


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        LockedError("style 'coat' is in use"),
        ConnectionResetError(),
        OutOfMemoryError("CUDA out of memory"),
        TrainingCrashedError("ended without a word"),
        sqlite3.OperationalError("database is locked"),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    tried: list[int] = []
    assert dg.materialize([failing(2, error, tried)]).success
    assert tried == [0, 1, 2]


@pytest.mark.parametrize(
    "error",
    [
        CatalogError("no photos"),
        TrainingFailedError("the loss is no number"),
        ValueError("rank"),
        sqlite3.OperationalError("no such table"),
    ],
)
def test_what_cannot_pass_fails_at_once(error: Exception) -> None:
    tried: list[int] = []
    assert not dg.materialize([failing(1, error, tried)], raise_on_error=False).success
    assert tried == [0]


def test_trying_ends() -> None:
    tried: list[int] = []
    assert not dg.materialize([failing(99, MemoryError(), tried)], raise_on_error=False).success
    assert tried == [0, 1, 2, 3]


def test_an_error_that_a_passing_one_led_to_may_pass_too() -> None:
    outer = RuntimeError("cannot be loaded")
    outer.__cause__ = ConnectionError()
    assert may_pass(outer) and not may_pass(RuntimeError("cannot be loaded"))


def test_a_step_tells_how_long_it_took_how_fast_it_was_and_how_much_memory_it_held() -> None:
    @dg.asset
    @step
    def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        held = bytearray(300_000_000)
        held[::4096] = bytes(len(held[::4096]))
        return dg.MaterializeResult(metadata={"images drawn": 8})

    result = dg.materialize([made])
    (event,) = result.asset_materializations_for_node("made")
    told = event.metadata
    seconds = told["seconds"].value
    assert 0 < seconds < 60
    assert told["images a second"].value == pytest.approx(8 / seconds, rel=0.2)
    assert told["peak memory of this process in GB"].value > 0.3


def test_every_asset_is_such_a_step() -> None:
    for asset in defs.assets or ():
        assert hasattr(asset.op.compute_fn.decorated_fn, "__wrapped__"), asset.key


@pytest.mark.parametrize(("pods", "tries"), [("", 1), ("pods.yaml", 2)])
def test_a_step_in_a_pod_that_is_told_to_end_goes_on_in_another_unless_its_run_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, pods: str, tries: int
) -> None:
    monkeypatch.setenv("FASHION_PIPELINE_KUBERNETES", pods)
    tried: list[int] = []
    evicted = failing(1, dg.DagsterExecutionInterruptedError(), tried)
    if tries == 1:
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            dg.materialize([evicted])
    else:
        assert dg.materialize([evicted]).success
    assert len(tried) == tries

    @dg.asset
    @step
    def cancelled(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        tried.append(context.retry_number)
        context.instance.report_run_canceling(context.run)
        raise dg.DagsterExecutionInterruptedError

    tried.clear()
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        dg.materialize([cancelled])
    assert tried == [0]
