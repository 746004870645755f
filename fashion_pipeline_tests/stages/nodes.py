"""A Ray cluster of two nodes of one processor each, which are processes of this machine."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MEMORY = 150 << 20
"""Bytes of a node's object store."""


@contextmanager
def two_nodes() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    own = {"num_cpus": 1, "object_store_memory": MEMORY}
    head = {**own, "include_dashboard": False, "ray_client_server_port": _free_port()}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**own)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def client_address(cluster: Any) -> str:
    """How a process that is on no node reaches the cluster."""
    host = str(cluster.address).rpartition(":")[0]
    return f"ray://{host}:{cluster.head_node._ray_params.ray_client_server_port}"


def _free_port() -> int:
    """Below those that Ray gives its workers."""
    for port in range(9000, 10_000):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no port is free")
