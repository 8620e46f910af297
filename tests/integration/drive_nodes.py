"""Driver of the tests that take nodes away: trains a toy stage, or maps a scene, on a cluster that is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from toys import toy_region, toy_stage

from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.fitting.training import run_stage
from idgbr.distributed.mapping.refine import RefineRequest, refine
from idgbr.distributed.session import start_ray


def main(folder: Path, address: str, request: dict[str, Any]) -> None:
    """Trains the stage "lost" in `folder`/runs, or writes `folder`/maps/scene_image.tif."""
    resources = ResourcesConfig(ray_address=address, **request["resources"])
    with start_ray(resources):
        if model := request.get("model"):
            scene = toy_region(folder, "scene", 560).image
            refine(RefineRequest(model, (scene.uri,), str(folder / "maps"), bands=("probability",)), resources)
        else:
            spec = toy_stage(folder, "lost", chaos=str(folder), **request["training"])
            print(json.dumps(run_stage(spec, resources, str(folder / "runs")).history))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
