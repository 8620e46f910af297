"""Driver of the resume test: trains a toy stage under a tracked run; a test kills it half-way and runs it again."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from toys import toy_stage

from idgbr.config.tree import ResourcesConfig, TrackingConfig
from idgbr.distributed.fitting.stage import TrackedRun
from idgbr.distributed.fitting.training import run_stage
from idgbr.distributed.session import start_ray
from idgbr.registry.tracking import Tracker


def main(folder: Path, workers: int) -> None:
    """Trains a stage that a test may hold or end."""
    resources = ResourcesConfig(train_workers=workers)
    tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", experiment="resume")
    held = toy_stage(folder, "held", chaos=str(folder / "chaos"), validate_every=4)
    with start_ray(resources), Tracker(tracking, "resume") as tracker, tracker.stage("toy") as run:
        spec = replace(held, tracking=TrackedRun(run.uri, run.run_id))
        first = run_stage(spec, resources, str(folder / "runs"))
    print(json.dumps({"resumed": first.history, "steps": first.steps}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
