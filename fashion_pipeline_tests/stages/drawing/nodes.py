"""A Ray cluster of two nodes of one processor each, which are processes of this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MEMORY = 150 << 20
"""Bytes of a node's object store."""


@contextmanager
def two_nodes() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    own = {"num_cpus": 1, "object_store_memory": MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args={**own, "include_dashboard": False})
    cluster.add_node(**own)
    try:
        yield cluster
    finally:
        cluster.shutdown()
