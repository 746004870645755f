"""What a run is said to cost at most is what it costs at most."""

import dagster as dg

from fashion_pipeline.core.progress import progress_in
from fashion_pipeline.stages.standing.costs import cost_of
from fashion_pipeline_tests.conftest import PHOTOS, SMALL, Chain


def drawn(run: dg.ExecuteInProcessResult, asset: str) -> int:
    (made,) = run.asset_materializations_for_node(asset)
    return int(made.metadata["images drawn"].value)


def test_a_first_run_draws_no_more_than_it_was_said_to_and_not_much_less(
    described: Chain, full_run: dg.ExecuteInProcessResult
) -> None:
    config = {op: values["config"] for op, values in SMALL["ops"].items()}
    cost = cost_of(
        described.models,
        PHOTOS,
        search=config["generated_samples"],
        training=config["lora_weights"],
        products=config["evaluation_report"]["products"],
        contestants=2,
    )
    really = drawn(full_run, "generated_samples") + drawn(full_run, "evaluation_report")
    assert 0.5 * cost.images <= really <= cost.images
    assert cost.steps == 6 and cost.bytes > described.models.unet_bytes() > 1e6


def test_prompts_alone_train_nothing_and_a_small_style_draws_less(described: Chain) -> None:
    search = {"budget": 64, "held_out_products": 128}
    alone = cost_of(described.models, 10, search=search, training=None, products=128, contestants=2)
    assert (alone.images, alone.steps) == (64 + 2 * (3 + 1), 0)


def test_a_run_logs_how_far_it_is(described: Chain, full_run: dg.ExecuteInProcessResult) -> None:
    told = [entry.user_message for entry in described.instance.all_logs(full_run.run_id)]
    assert any((found := progress_in(text)) and found.done == found.total and "images drawn" in text for text in told)
