"""Everything from one configuration: prepare, train both stages, map, evaluate and register.

    python jobs/pipeline.py --config configs/demo.yaml
    python jobs/pipeline.py --config configs/demo.yaml --training.refiner.steps 400 --fresh
    ray job submit --working-dir . --runtime-env configs/runtime_env.yaml -- \
        python jobs/pipeline.py --config configs/demo.yaml

Run again it continues where it ended, and does not do again what is done. At the end it says where report, model and
maps are.
"""

from __future__ import annotations

from typing import Any, NoReturn

from idgbr.cli import TrainingFlags, run_job
from idgbr.config.tree import Experiment


def main(flags: TrainingFlags, experiment: Experiment) -> dict[str, Any]:
    """Runs the pipeline."""
    from idgbr.distributed.flows.pipeline import run_pipeline

    return run_pipeline(experiment, flags.fresh, flags.start).outputs()


def run() -> NoReturn:
    """Runs the command and ends the process with its exit code."""
    run_job(main, TrainingFlags, __doc__)


if __name__ == "__main__":
    run()
