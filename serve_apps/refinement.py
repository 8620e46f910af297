"""The application: gateway, scene workers and both stages, wired and scaled as the arguments say.

serve deploy configs/serve/cluster.yaml        # on a running cluster
make serve                                     # on this machine, with the demo's model

Serve makes the arguments out of the file by the annotation of `build`, which must be an object, not a string: hence no
`from __future__ import annotations`.
"""

from typing import Any, cast

from ray import serve
from ray.serve import Deployment
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from serve_apps.access import Keys
from serve_apps.gateway import Gateway
from serve_apps.model_folder import pinned
from serve_apps.scene_worker import SceneWorker
from serve_apps.settings import Args, DeploymentArgs, StageArgs
from serve_apps.stages import CoarseSegmenter, DiffusionRefiner


def build(args: Args) -> serve.Application:
    """The application.

    The model's alias is resolved here, once: every replica gets the version, as `user_config`. To serve another one,
    deploy again, or change the `user_config` of SceneWorker, CoarseSegmenter and DiffusionRefiner alike.

    Args:
        args: See `settings.Args`.

    Raises:
        UserError: there is no such model, or the keys cannot be read.
    """
    Keys.read(args.access)
    user_config = {"model": pinned(args.model, args.tracking_uri, args.stand_in)}
    drain_s = args.limits.request_s
    stages = [
        cast(Deployment, deployment)
        .options(user_config=user_config, **(_scaled(stage) | _model_actor(stage)))
        .bind(stage, args.tracking_uri, drain_s)
        for deployment, stage in ((CoarseSegmenter, args.coarse), (DiffusionRefiner, args.refiner))
    ]
    worker = cast(Deployment, SceneWorker).options(user_config=user_config, **_scaled(args.scenes))
    busy = {"status_code": 429, "retry_after_s": 2}
    door = cast(Deployment, Gateway).options(**_scaled(args.gateway), backpressure_config=busy)
    return door.bind(args, worker.bind(args, *stages))


def _scaled(args: DeploymentArgs) -> dict[str, Any]:
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=args.min_replicas,
            max_replicas=args.max_replicas,
            target_ongoing_requests=args.target_ongoing_requests,
            upscale_delay_s=args.upscale_delay_s,
            downscale_delay_s=args.downscale_delay_s,
        ),
        "max_ongoing_requests": args.max_ongoing_requests,
        "max_queued_requests": args.max_queued_requests,
        "logging_config": LoggingConfig(encoding="JSON", enable_access_log=False),
        "ray_actor_options": {"num_cpus": args.num_cpus},
    }


def _model_actor(args: StageArgs) -> dict[str, Any]:
    return {"ray_actor_options": {"num_cpus": args.num_cpus, "num_gpus": args.num_gpus}}
