"""Keeps a cluster of three machines for the tests that remove some of them; commands come as lines on standard input.

A process of its own: a cluster changes what Ray keeps for a whole process, which the tests' own Ray lives on.
"""

from __future__ import annotations

import json
import os
import sys

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 2, "object_store_memory": 200 * 2**20}


def main() -> None:
    """Answers each line in JSON: `fill` the address, `free` the idle CPUs of each machine, `lose ID` how many stay."""
    os.environ["RAY_API_SERVER_ADDRESS"] = "none://"  # as in idgbr.distributed.session, where it says why
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    try:
        for line in sys.stdin:
            print(json.dumps(answer(cluster, *line.split())), flush=True)
    finally:
        cluster.shutdown()


def answer(cluster: Cluster, what: str, machine: str = "") -> object:
    """Never names the head, where drivers are."""
    if what == "fill":
        while len(cluster.list_all_nodes()) < 3:
            cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        return cluster.address
    if what == "free":
        free = cluster.global_state.available_resources_per_node()
        nodes = [node.node_id for node in cluster.worker_nodes]
        return {node: free[node].get("CPU", 0.0) for node in nodes if node in free}
    gone = next(node for node in cluster.worker_nodes if node.node_id == machine)
    cluster.remove_node(gone, allow_graceful=False)
    return len(cluster.list_all_nodes())


if __name__ == "__main__":
    main()
