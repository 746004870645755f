"""What of a training in another process reaches the page of the run."""

import dagster as dg

from fashion_pipeline.defs.assets.training import lora_weights
from fashion_pipeline_tests.conftest import Chain, errors


def test_progress_and_images_appear_on_the_page_of_the_run(
    described: Chain, full_run: dg.ExecuteInProcessResult
) -> None:
    entries = described.instance.all_logs(full_run.run_id)
    assert any(entry.user_message.startswith("training: step 6 of 6, loss ") for entry in entries)
    events = [entry.dagster_event for entry in entries if entry.dagster_event]
    observed = [e.asset_observation_data.asset_observation for e in events if e.event_type_value == "ASSET_OBSERVATION"]
    assert {each.description for each in observed} == {f"images drawn at step {step:08d}" for step in range(7)}
    assert all("(/fashion/pictures/training/coat/" in each.metadata["images"].value for each in observed)


def test_what_the_process_said_is_the_error_of_the_run(described: Chain, full_run: dg.ExecuteInProcessResult) -> None:
    failed = described.materialize([lora_weights], "coat", {"ops": {"lora_weights": {"config": {"rank": 1000}}}})
    assert not failed.success
    (error,) = errors(failed)
    assert "rank is 1000, but layer" in error and "choose a smaller rank" in error
