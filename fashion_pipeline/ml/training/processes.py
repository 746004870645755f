"""Several processes that train together, started by `accelerate launch`: each takes its share of every batch."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from accelerate import PartialState
from torch import distributed

from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.training.objective import Batch


def leads() -> bool:
    """Whether this process is the only one, or the one of its group that writes."""
    return bool(PartialState().is_main_process)


T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """This process and those it trains with; one alone is a group, too."""

    state: PartialState

    @classmethod
    def join(cls, device: Device) -> "Group":
        """The group that this process was started in."""
        return cls(PartialState(cpu=device.type == "cpu"))

    @property
    def size(self) -> int:
        """Processes in the group."""
        return int(self.state.num_processes)

    @property
    def leads(self) -> bool:
        """Whether this is the process that draws, reports and writes."""
        return bool(self.state.is_main_process)

    def own(self, device: Device) -> Device:
        """The device of this process, where the group has several."""
        return replace(device, name=str(self.state.device)) if self.size > 1 and device.type == "cuda" else device

    def leader_first(self) -> AbstractContextManager[None]:
        """A block that the others enter when the leader has left it."""
        return self.state.main_process_first()  # type: ignore[no-any-return]

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch."""
        return batch.rows(int(self.state.process_index), self.size) if self.size > 1 else batch

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over the group, in its place."""
        if self.size > 1:
            distributed.all_reduce(value)
            value /= self.size
        return value

    def average_gradients(self, learning: Iterable[torch.nn.Parameter]) -> None:
        """Give every process the mean of all gradients."""
        if self.size > 1:
            gradients = [weight.grad for weight in learning if weight.grad is not None]
            for waiting in [distributed.all_reduce(gradient, async_op=True) for gradient in gradients]:
                waiting.wait()
            for gradient in gradients:
                gradient /= self.size

    def any(self, here: bool) -> bool:
        """Whether something is so in any process of the group."""
        return bool(self.mean(torch.tensor(float(here), device=self.state.device)) > 0) if self.size > 1 else here

    def told(self, value: T) -> T:
        """What the leader knows, for all."""
        if self.size == 1:
            return value
        known = [value]
        distributed.broadcast_object_list(known, src=0)
        return known[0]
