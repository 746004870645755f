"""Several processes that train together, started by `torchrun`: each takes its share of every batch."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.training.objective import Batch
from fashion_pipeline.ml.training.results import TrainingError

MEETING = "FASHION_PIPELINE_MEETING"
"""Names a file by which processes of one machine meet (`stages.training.together`); else torchrun says how."""


PATIENCE = timedelta(days=2)
"""How long processes wait for each other: the leader may encode for hours first. Where one dies, torchrun ends all."""


def leads() -> bool:
    """Whether this process is the only one, or the one of its group that draws, reports and writes."""
    return not distributed.is_torchelastic_launched() or int(os.environ["RANK"]) == 0


T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """This process and those it trains with; one alone is a group, too."""

    device: Device
    """Where this process computes."""
    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: Device, processes: int) -> "Group":
        """The group that this process was started in; raises TrainingError where it is of another size than asked for.

        On CUDA each process has a card of its own. What `torchrun` tells its processes:
        https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
        """
        if distributed.is_torchelastic_launched() and not distributed.is_initialized():
            if device.type == "cuda":
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            meeting = os.environ.get(MEETING)
            distributed.init_process_group(
                timeout=PATIENCE,
                backend="nccl" if device.type == "cuda" else "gloo",
                init_method=f"file://{meeting}" if meeting else "env://",
                rank=int(os.environ["RANK"]),
                world_size=int(os.environ["WORLD_SIZE"]),
            )
        group = cls(device)
        if distributed.is_initialized():
            device_here = replace(device, name=f"cuda:{os.environ['LOCAL_RANK']}") if device.type == "cuda" else device
            group = cls(device_here, distributed.get_rank(), distributed.get_world_size())
        if group.size != processes:
            raise TrainingError(
                f"processes is {processes}, but {group.size} were started: start this training from the asset, the "
                f"command line or torchrun --nproc-per-node={processes}, or set processes to {group.size}"
            )
        return group

    @property
    def leads(self) -> bool:
        """Whether this is the process that draws, reports and writes."""
        return self.rank == 0

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """A block that the others enter when the leader has left it."""
        if not self.leads:
            distributed.barrier()
        yield
        if self.leads and self.size > 1:
            distributed.barrier()

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch."""
        return batch.rows(self.rank, self.size) if self.size > 1 else batch

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
        return bool(self.mean(torch.tensor(float(here), device=self.device.name)) > 0) if self.size > 1 else here

    def told(self, value: T) -> T:
        """What the leader knows, for all."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]
