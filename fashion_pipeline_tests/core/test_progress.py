"""How far something is: said seldom, at its end, and with the time left; and understood again."""

import pytest

from fashion_pipeline.core.progress import EVERY_SECONDS, Meter, Progress, left, progress_in, spoken


def test_a_meter_speaks_every_few_seconds_and_at_the_end() -> None:
    said: list[str] = []
    now = 0.0
    meter = Meter(said.append, "original: {} images drawn", 100, clock=lambda: now)
    for done in range(1, 101):
        now += 1.0
        meter.reach(done)
    assert len(said) == 100 / EVERY_SECONDS
    assert said[0] == "original: 5 of 100 images drawn, 2 min left" and said[-1] == "original: 100 of 100 images drawn"
    assert [progress_in(text) for text in said[:2]] == [Progress(5, 100), Progress(10, 100)]


def test_something_short_is_said_once() -> None:
    said: list[str] = []
    meter = Meter(said.append, "{} photos", 3)
    for done in (1, 2, 3):
        meter.reach(done)
    assert said == ["3 of 3 photos"]


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.2, "1 s"), (59, "59 s"), (60, "1 min"), (3540, "59 min"), (7800, "2 h 10 min")]
)
def test_durations_are_for_people(seconds: float, told: str) -> None:
    assert spoken(seconds) == told


def test_the_time_left_follows_the_pace() -> None:
    assert left(30.0, 1, 4) == ", 2 min left"
    assert left(10.0, 0, 4) == left(10.0, 4, 4) == ""


def test_a_step_of_a_training_is_progress_too() -> None:
    assert progress_in("training: step 3 of 100, loss 0.1, 12 s left") == Progress(3, 100)


@pytest.mark.parametrize(
    "text",
    ["two of three", "training: step 5 of 0", "a: 7 of 5 images", "a photo of a coat", "left out 3 of 24 photos"],
)
def test_what_is_no_progress_is_not_taken_for_one(text: str) -> None:
    assert progress_in(text) is None


def test_what_comes_in_batches_is_not_told_by_its_first_one() -> None:
    said: list[str] = []
    now = 0.0
    meter = Meter(said.append, "{} images", 48, clock=lambda: now)
    for done in range(1, 49):
        now += 16.0 if done % 16 == 1 else 0.0  # sixteen at a time
        meter.reach(done)
    assert said[:3] == ["1 of 48 images", "17 of 48 images, 31 s left", "33 of 48 images, 15 s left"]
