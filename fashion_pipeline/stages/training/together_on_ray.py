"""A training in processes of several machines: `python -m fashion_pipeline.stages.training.together_on_ray FILE COUNT`.

This process leads: it draws, reports and writes, as if it trained alone. The others are tasks of the Ray cluster that
FASHION_PIPELINE_RAY names, on other nodes where there are any, and end with it. They find each other at a store that
this process opens, so a cluster needs a network of its own.
"""

import os
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fashion_pipeline.ml.training.results import TrainingJob
from fashion_pipeline.stages.drawing.models import cards
from fashion_pipeline.stages.training import process
from fashion_pipeline.stages.training.process import Order

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def main(order: Path, processes: int, address: str) -> int:
    """Start the others, train with them, and end when all have."""
    import ray

    ray.init(address, log_to_driver=False, logging_level="ERROR")
    own = ray.util.get_node_ip_address()
    meeting = _meeting(own, processes)
    needs: dict[str, Any] = {"num_gpus": 1} if cards() else {"num_cpus": 1}
    job = TrainingJob.load(Path(Order.read(order).job))
    join = ray.remote(**needs, max_retries=0, scheduling_strategy="SPREAD")(_join)
    others = [
        join.remote(asdict(Order.read(order)), job, meeting | {"RANK": str(rank)}) for rank in range(1, processes)
    ]
    os.environ |= meeting | {"RANK": "0"}
    code = process.main(order)
    if code == 0:
        ray.get(others)
    return code


def _meeting(own: str, processes: int) -> dict[str, str]:
    """What `torchrun` would tell each process, but for its rank; each has one place on its machine."""
    import ray

    with socket.socket() as probe:
        probe.bind((own, 0))
        port = probe.getsockname()[1]
    places = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    alone = {"GLOO_SOCKET_IFNAME": _LOOPBACK, "NCCL_SOCKET_IFNAME": _LOOPBACK} if places == {own} else {}
    return alone | {
        "TORCHELASTIC_RUN_ID": "fashion-pipeline",
        "MASTER_ADDR": own,
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "LOCAL_RANK": "0",
    }


def _join(order: dict[str, Any], job: Any, told: dict[str, str]) -> None:
    """What another process does."""
    os.environ.update(told)
    mine = Order(**order)
    process.train_here(mine.models(), job, mine.title)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
