"""A month of six styles: each is retrained when there is a reason, and only then. Trainings are planted."""

from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from fashion_pipeline.core.rows import Role
from fashion_pipeline.stages.catalog.catalog import catalogue
from fashion_pipeline.stages.standing.retraining import settings_state
from tools.simulated_month import EXPECTED, World, live, unexpected

pytestmark = pytest.mark.thorough


def run(world: World, job: str, style: str, tags: dict[str, str]) -> bool:
    """The real catalog; a description by the photos' own colours; a training that leaves an evaluation behind."""
    store, failed = world.store, job == "full_pipeline" and style in world.fails_next
    status = dg.DagsterRunStatus.FAILURE if failed else dg.DagsterRunStatus.SUCCESS
    world.instance.add_run(dg.DagsterRun(job_name=job, tags={**tags, "dagster/partition": style}, status=status))
    if failed:
        world.fails_next.discard(style)
        return False
    catalog = catalogue(store, style).record
    images = catalog.table("images")
    rows = np.stack([np.frombuffer(thumbnail, np.uint8) for thumbnail in images["thumbnail"].to_pylist()])
    rows = rows / np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True)
    store.features.add(style, Role.ENCODER, "colours", images["id"].to_pylist(), rows.astype(np.float32))
    inputs = {"catalog": catalog}
    tables = {"attributes": []}
    store.records.add("features", style, inputs=inputs, made_of={"encoder": "colours"}, tables=tables)
    store.sources.mark(style, "features", store.sources.done_with(style, "catalog") or "")
    if job == "full_pipeline":
        store.records.add("evaluation", style, inputs=inputs, key=catalog.key)
        store.sources.mark(style, "evaluation", settings_state(store, world.models.profile, style))
    return True


def test_in_a_month_every_retraining_that_has_a_reason_happens_once_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        world = World(tmp_path, run, instance)
        for _ in live(world):
            pass
        assert unexpected(world) == []
    assert len({style for _, style, job, _ in EXPECTED if job == "full_pipeline"}) == 7
