"""Keeps a cluster of logical nodes on this machine until its standard input ends.

python -m benchmarks._cluster NODES STORE_BYTES
"""

from __future__ import annotations

import json
import os
import sys

from ray.cluster_utils import Cluster

from idgbr.distributed.session import worker_environment


def main(nodes: int, store: int) -> None:
    """Prints the address in JSON once all nodes are up; the head has no CPUs."""
    os.environ.update(worker_environment(1))
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": store, "include_dashboard": False},
    )
    try:
        for _ in range(nodes):
            cluster.add_node(wait=False, num_cpus=2, object_store_memory=store)
        cluster.wait_for_nodes(timeout=60 + 10 * nodes)
        print(json.dumps(cluster.address), flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
