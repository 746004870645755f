"""What follows when an asset is materialised by hand: what is stale, and nothing that is fresh."""

from collections.abc import Iterator

import dagster as dg
import pytest

from fashion_pipeline.definitions import defs
from fashion_pipeline.defs.automation.jobs import ASSETS

STYLES = ("bag", "coat")


class Desk:
    """Somebody who materialises, and the daemon that looks what follows."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.cursor = instance, None

    def made(self, asset: str, style: str | None, version: str) -> None:
        """An asset was materialised with some content."""
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(asset, partition=style, tags={"dagster/data_version": version})
        )

    def follows(self) -> set[tuple[str, str]]:
        """Asset and style of all that is asked for at this tick."""
        found = dg.evaluate_automation_conditions(defs, self.instance, cursor=self.cursor)
        self.cursor = found.cursor
        asked = {each for asset in ASSETS for each in _requested(found, asset.key)}
        for asset, style in asked:  # what is asked for is made, with content of its own
            self.made(asset, style or None, f"{asset} after {len(asked)}")
        return asked


def _requested(found: dg.EvaluateAutomationConditionsResult, key: dg.AssetKey) -> Iterator[tuple[str, str]]:
    """Asset and style, for each style of one asset that is asked for."""
    whole = found.get_requested_partitions(key)
    yield from ((key.to_user_string(), style or "") for style in whole)


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Both styles have everything, and the daemon has seen it."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("styles", list(STYLES))
        made = Desk(instance)
        for asset in ASSETS:
            name = asset.key.to_user_string()
            for style in STYLES if asset.partitions_def else (None,):
                made.made(name, style, "first")
        made.follows()
        yield made


def test_switching_it_on_rebuilds_nothing(desk: Desk) -> None:
    assert desk.follows() == set()


def test_the_same_content_again_makes_nothing_stale(desk: Desk) -> None:
    desk.made("raw_images", "coat", "first")
    assert desk.follows() == set()


@pytest.mark.parametrize(
    ("made", "then"),
    [
        ("raw_images", [{"clip_features"}]),
        ("generated_samples", [{"similarity_table"}, {"prompt_report"}]),
        ("lora_weights", [{"specialised_model"}, {"evaluation_report"}, {"style_leaderboard"}]),
        ("curated_subset", []),
        ("published_model", []),
    ],
)
def test_what_is_made_within_minutes_follows_for_the_same_style_and_training_does_not(
    desk: Desk, made: str, then: list[set[str]]
) -> None:
    desk.made(made, "coat", "second")
    for expected in then:
        assert desk.follows() == {(name, "" if name == "style_leaderboard" else "coat") for name in expected}
    assert desk.follows() == set()


def test_a_style_without_any_input_keeps_no_other_from_the_leaderboard(desk: Desk) -> None:
    desk.instance.add_dynamic_partitions("styles", ["hat"])
    desk.made("evaluation_report", "coat", "second")
    assert desk.follows() == {("style_leaderboard", "")}
