"""Driver of the test of a killed refinement: maps a scene with a small model."""

from __future__ import annotations

import sys
from pathlib import Path

from toys import toy_region

from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.mapping.refine import RefineRequest, refine


def main(folder: Path, model: str, output: str, in_process_windows: int = 64) -> None:
    """Writes `folder`/`output`/scene_image.tif."""
    scene = folder / "scene_image.tif"
    if not scene.exists():
        toy_region(folder, "scene", 640)
    request = RefineRequest(model, (str(scene),), str(folder / output), bands=("probability",))
    refine(request, ResourcesConfig(infer_workers=1, cpus_per_worker=0.5, in_process_windows=in_process_windows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
