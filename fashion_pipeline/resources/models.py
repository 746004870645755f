"""The models of the profile as a Dagster resource. Where there are several graphics cards, each run has one of them."""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import dagster as dg

from fashion_pipeline.resources.gpu import Gpu
from fashion_pipeline.stages.drawing.models import Models, cards
from fashion_pipeline.store.errors import LockedError
from fashion_pipeline.store.storage.locks import holding
from fashion_pipeline.store.store import Store

_VISIBLE = "CUDA_VISIBLE_DEVICES"


class ModelsResource(dg.ConfigurableResource[Models]):
    """Lends the models of a profile on a device."""

    profile: str
    """A profile's name, or the path of a profile file."""
    gpu: dg.ResourceDependency[Gpu]
    root: str
    """Absolute path of the data root, where it is kept how this machine computes fastest."""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[Models, None, None]:
        """The models, on a card that no other run has, if there is a choice."""
        models = self.create_resource(context)
        if context.run is None:  # a sensor or a schedule draws nothing
            yield models
            return
        with ExitStack() as held:
            yield replace(models, device=_own_card(models.device, Store(Path(self.root)), held))

    def create_resource(self, context: dg.InitResourceContext | None = None) -> Models:
        """The models; nothing is loaded yet."""
        return Models(self.profile, self.gpu.device, self.gpu.precision, Path(self.root) / "machine")


@contextmanager
def own_cards(device: str, processes: int, store: Store) -> Iterator[dict[str, str]]:
    """The environment in which several processes see as many cards, which nobody else has while the block runs.

    Empty where one process trains, or cards are no question; the run's own card is among them. Raises LockedError
    where there are too few that are free.
    """
    count = cards() if device.partition(":")[0] in ("auto", "cuda") else 0
    if processes < 2 or count < 2:
        yield {}
        return
    named = [int(index)] if (index := device.partition(":")[2]) else []
    with ExitStack() as held:
        for card in range(count):
            if card not in named and len(named) < processes:
                with suppress(LockedError):
                    held.enter_context(holding(store.locks.card(card), f"card {card}", "a training"))
                    named.append(card)
        if len(named) < processes:
            raise LockedError(
                f"processes is {processes}, one a card, but only {len(named)} of {count} cards are free: wait for the "
                "others, or set processes lower"
            )
        given = os.environ.get(_VISIBLE, "")
        names = given.split(",") if given else [str(card) for card in range(count)]
        yield {_VISIBLE: ",".join(names[card] for card in sorted(named))}


def _own_card(device: str, store: Store, held: ExitStack) -> str:
    """A card whose lock is free, and held from now on; the device itself where one was named or all are taken."""
    count = cards() if device in ("auto", "cuda") else 0
    for card in range(count) if count > 1 else ():
        try:
            held.enter_context(holding(store.locks.card(card), f"card {card}", "a run"))
        except LockedError:
            continue
        return f"cuda:{card}"
    return device
