"""Driver of the test of GPU shares: the service on a cluster that declares one GPU, and then two more."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve import RunTarget
from ray.util.state import list_actors
from serving import SMALL

from serve_apps.refinement import build
from serve_apps.settings import Args


def main(model: str) -> None:
    """Deploys what fits, then what does not, then adds the node it waits for."""
    head = {"num_cpus": 4, "num_gpus": 1, "object_store_memory": 200 * 2**20, "include_dashboard": True}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        ray.init(address=cluster.address)
        serve.start()
        deploy(model, 0.25, 0.5)
        until(healthy)
        assert held("CoarseSegmenter") == [0.25] and held("DiffusionRefiner") == [0.5], "not the shares of the config"
        assert held("Gateway") == held("SceneWorker") == [0.0]
        assert abs(ray.available_resources()["GPU"] - 0.25) < 1e-6
        deploy(model, 0.25, 2.0)
        until(lambda: "GPU" in refiner().message)
        print(refiner().message)
        assert "2.0" in refiner().message and refiner().status == "UPDATING"
        cluster.add_node(num_cpus=2, num_gpus=2, object_store_memory=200 * 2**20)
        until(healthy)
        assert held("DiffusionRefiner") == [2.0]
        serve.shutdown()
        ray.shutdown()
    finally:
        cluster.shutdown()


def deploy(model: str, coarse: float, refiner_share: float) -> None:
    stages = {
        name: {**SMALL[name], "num_gpus": share, "device": "cpu"}
        for name, share in (("coarse", coarse), ("refiner", refiner_share))
    }
    target = RunTarget(build(Args.model_validate({"model": model} | SMALL | stages)), "refinement", "/")
    serve.run_many([target], wait_for_applications_running=False)


def refiner() -> serve.schema.DeploymentStatusOverview:
    return serve.status().applications["refinement"].deployments["DiffusionRefiner"]


def healthy() -> bool:
    application = serve.status().applications["refinement"]
    return application.status == "RUNNING" and all(d.status == "HEALTHY" for d in application.deployments.values())


def held(deployment: str) -> list[float]:
    """GPUs that the replicas of a deployment hold."""
    actors = list_actors(filters=[("state", "=", "ALIVE")], detail=True, limit=200)
    ours = [actor for actor in actors if f"#{deployment}#" in (actor.name or "")]
    return [float(actor.required_resources.get("GPU", 0.0)) for actor in ours]


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(str(serve.status()))
        time.sleep(0.5)


if __name__ == "__main__":
    main(sys.argv[1])
