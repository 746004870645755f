"""Several graphics cards: a run has one of its own, and as many heavy steps go at a time as there are cards."""

from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest

from fashion_pipeline.resources import models
from fashion_pipeline.running import launching
from fashion_pipeline.running.runs import POOL
from fashion_pipeline.stages.drawing import models as lent
from fashion_pipeline.store.errors import LockedError
from fashion_pipeline.store.store import Store


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_each_run_gets_a_card_of_its_own_while_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(models, "cards", lambda: 2)
    store = Store(tmp_path)
    with ExitStack() as first:
        assert models._own_card(device, store, first) == "cuda:0"
        with ExitStack() as second:
            assert models._own_card(device, store, second) == "cuda:1"
            with ExitStack() as third:
                assert models._own_card(device, store, third) == device
        with ExitStack() as fourth:
            assert models._own_card(device, store, fourth) == "cuda:1"


def test_a_card_that_was_named_is_used_and_one_card_needs_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    with ExitStack() as held:
        for count, device in ((2, "cuda:1"), (2, "cpu"), (1, "auto"), (0, "auto")):
            monkeypatch.setattr(models, "cards", lambda count=count: count)
            assert models._own_card(device, store, held) == device
    assert not store.locks.card(0).exists()


def test_the_pool_has_as_many_slots_as_there_are_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr(lent, "cards", lambda: 3)
        launching._set_slots(instance)
        (pool,) = [limit for limit in instance.event_log_storage.get_pool_limits() if limit.name == POOL]
        assert pool.limit == 3


def test_processes_of_a_training_have_cards_that_nobody_else_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "cards", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    store = Store(tmp_path)
    with ExitStack() as first, ExitStack() as second:
        assert models._own_card("auto", store, first) == "cuda:0"
        own = models._own_card("auto", store, second)
        with models.own_cards(own, 3, store) as visible:
            assert visible == {"CUDA_VISIBLE_DEVICES": "1,2,3"}, "not the card of the first run"
            with (
                pytest.raises(LockedError, match="processes is 2, one a card, but only 1 of 4 cards are free"),
                models.own_cards("cuda:0", 2, store),
            ):
                pytest.fail("two at once")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
        with models.own_cards("cuda:0", 2, store) as visible:
            assert visible == {"CUDA_VISIBLE_DEVICES": "4,6"}
    for device, processes in (("cpu", 3), ("auto", 1), ("mps", 2)):
        with models.own_cards(device, processes, store) as visible:
            assert visible == {}
