"""A run holds the lock of its style; who comes second is told, or waits if nobody watches."""

import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from fashion_pipeline.defs.styles import styles
from fashion_pipeline.resources.store import StoreResource
from fashion_pipeline.store.storage.locks import holding, is_held
from fashion_pipeline.store.store import Store


@dg.asset(partitions_def=styles)
def working(context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]) -> dg.MaterializeResult:
    """Says which locks are held while it works."""
    held = {"style": is_held(store.locks.style("coat")), "run": is_held(store.locks.run(context.run.run_id))}
    return dg.MaterializeResult(metadata=held)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def run(store: Store, tags: dict[str, str]) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("styles", ["coat"])
        return dg.materialize(
            [working],
            partition_key="coat",
            instance=instance,
            tags=tags,
            resources={"store": StoreResource(root=str(store.root))},
            raise_on_error=False,
        )


def test_a_run_holds_the_locks_of_its_style_and_of_its_life_and_leaves_none(store: Store) -> None:
    result = run(store, {})
    (event,) = result.get_asset_materialization_events()
    assert [event.materialization.metadata[name].value for name in ("style", "run")] == [True, True]
    assert not is_held(store.locks.style("coat")) and store.locks.run(result.run_id).read_text() == ""


def test_a_run_of_the_sensor_waits_for_the_one_that_is_at_work(store: Store) -> None:
    at_work, done = threading.Event(), threading.Event()

    def work() -> None:
        with holding(store.locks.style("coat"), "style 'coat'", "run 7"):
            at_work.set()
            time.sleep(1.0)
            done.set()

    threading.Thread(target=work).start()
    at_work.wait()
    assert not run(store, {}).success and not done.is_set()
    assert run(store, {"dagster/sensor_name": "new_photos"}).success and done.is_set()
