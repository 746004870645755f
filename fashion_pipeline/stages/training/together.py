"""A training in several processes of this machine: `python -m fashion_pipeline.stages.training.together FILE COUNT`.

They find each other by files, and then talk over the loopback interface. `torchrun --standalone` would let them meet at
a TCP store, which listens on every interface of the machine, for anybody.
"""

import os
import sys
import tempfile
from pathlib import Path

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def main(order: str, processes: int) -> None:
    """Start the processes of an order (`process.Order`) and end with them; raises what torchrun does if one fails."""
    from torch.distributed import run

    from fashion_pipeline.ml.training.processes import MEETING

    with tempfile.TemporaryDirectory(prefix="fashion-pipeline-") as folder:
        os.environ |= {
            MEETING: str(Path(folder) / "processes"),
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            "GLOO_SOCKET_IFNAME": _LOOPBACK,
            "NCCL_SOCKET_IFNAME": _LOOPBACK,
        }
        rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint={folder}/agent", "--rdzv-conf=store_type=file"]
        where = ["--nnodes=1", "--local-addr=127.0.0.1", f"--nproc-per-node={processes}"]
        run.main([*rendezvous, *where, "-m", "fashion_pipeline.stages.training.process", order])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
