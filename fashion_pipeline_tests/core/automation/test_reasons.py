"""When a style is retrained, and what is said where it is not."""

from dataclasses import replace

import pytest

from fashion_pipeline.core.automation.preferences import Preferences, Retraining, Rule, StyleRule
from fashion_pipeline.core.automation.reasons import Change, at_once, on_schedule
from fashion_pipeline.core.features.drift import Drift

NOTHING = Change(photos=60, trained=True, new=0, gone=0, withdrawn=0, settings=False, arrivals=False, drift=None)
UNTRAINED = replace(NOTHING, trained=False, new=60)
RULE = Rule(new_photos=20, drift=0.01)


@pytest.mark.parametrize(
    ("change", "retrain", "why"),
    [
        (NOTHING, False, "no new photos"),
        (replace(NOTHING, new=19), False, "19 new photos; it takes 20 new photos"),
        (replace(NOTHING, new=20), True, "20 new photos"),
        (replace(NOTHING, new=9, drift=Drift(0.0005, 0.2, 9, 40)), True, "drift: 9 new products differ from 40"),
        (replace(NOTHING, new=9, drift=Drift(0.01, 0.2, 9, 40)), False, "9 new photos, drift p = 0.01; it takes"),
        (replace(NOTHING, gone=5, settings=True, withdrawn=1), False, "no new photos"),
        (UNTRAINED, True, "first training, on 60 photos"),
        (replace(UNTRAINED, new=19), False, "19 new photos; it takes 20 new photos"),
        (replace(UNTRAINED, new=0), False, "60 photos, never trained: waits for 20 new photos or a run by hand"),
        (replace(UNTRAINED, new=0, photos=0), False, "has no photos"),
        (UNTRAINED, True, "first training, on 60 photos; about 18 products held out for the verdict, which needs 40"),
        (replace(UNTRAINED, new=135, photos=135), True, "first training, on 135 photos"),
    ],
)
def test_the_sensor_waits_for_enough_photos_or_for_others(change: Change, retrain: bool, why: str) -> None:
    decision = at_once(change, RULE)
    assert (decision.retrain, decision.why[: len(why)]) == (retrain, why)


def test_a_style_may_be_kept_from_being_retrained_by_the_sensor() -> None:
    many = replace(NOTHING, new=500, drift=Drift(0.0005, 0.2, 500, 40))
    assert not at_once(many, Rule(new_photos=0, drift=0)).retrain
    assert at_once(many, Rule(new_photos=0, drift=0.01)).retrain


@pytest.mark.parametrize(
    ("change", "retrain", "why"),
    [
        (NOTHING, False, "photos, profile and settings are those of the last training"),
        (replace(NOTHING, new=1), True, "on schedule: 1 new photo"),
        (replace(NOTHING, gone=2, withdrawn=2), True, "on schedule: 0 new photos, 2 gone, 2 withdrawn"),
        (replace(NOTHING, withdrawn=1), True, "on schedule: 0 new photos, 1 withdrawn"),
        (replace(NOTHING, settings=True), True, "on schedule: 0 new photos, other settings"),
        (replace(NOTHING, arrivals=True), True, "on schedule: 0 new photos, photos that were not taken in yet"),
        (replace(NOTHING, new=9, drift=Drift(0.0005, 0.2, 9, 40)), True, "drift: "),
        (UNTRAINED, True, "first training, on 60 photos"),
    ],
)
def test_at_the_time_of_the_schedule_any_difference_is_a_reason(change: Change, retrain: bool, why: str) -> None:
    decision = on_schedule(change, RULE)
    assert (decision.retrain, decision.why[: len(why)]) == (retrain, why)


def test_a_style_has_its_own_rule_where_it_is_different() -> None:
    chosen = Preferences(
        retraining=Retraining(cron="0 3 * * 1", new_photos=30),
        styles={"coat": StyleRule(cron="0 4 * * *"), "bag": StyleRule(cron="", drift=0.0)},
    )
    assert chosen.rule("dress") == Rule(cron="0 3 * * 1", new_photos=30, drift=0.01)
    assert chosen.rule("coat") == Rule(cron="0 4 * * *", new_photos=30, drift=0.01)
    assert chosen.rule("bag") == Rule(cron="", new_photos=30, drift=0.0)
    assert chosen.crons() == ["0 3 * * 1", "0 4 * * *"]
