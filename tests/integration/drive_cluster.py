"""Driver of the two-node test: trains a toy stage on a local cluster of two nodes."""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from toys import toy_stage

from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.fitting.training import run_stage
from idgbr.distributed.session import start_ray


def main(folder: Path) -> None:
    """Leaves a file per node that read windows, and one per node that trained, in `folder`/nodes."""
    (folder / "nodes").mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 200 * 2**20})
    cluster.add_node(num_cpus=2, object_store_memory=200 * 2**20)
    try:
        resources = ResourcesConfig(ray_address=cluster.address, train_workers=2)
        with start_ray(resources):
            cluster.wait_for_nodes()
            assert len(ray.nodes()) == 2
            spec = toy_stage(folder, "nodes", nodes=str(folder / "nodes"), steps=120, batch=32, validate_every=120)
            run_stage(spec, resources, str(folder / "runs"))
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
