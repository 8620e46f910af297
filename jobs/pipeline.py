"""Everything from one configuration: prepare, train both stages, map, evaluate and register.

    python jobs/pipeline.py --config configs/demo.yaml
    python jobs/pipeline.py --config configs/demo.yaml --training.refiner.steps 400 --fresh
    ray job submit --working-dir . --runtime-env configs/runtime_env.yaml -- \
        python jobs/pipeline.py --config configs/demo.yaml

Run again it continues where it ended, and does not do again what is done. At the end it says where report, model and
maps are.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from idgbr.cli import ExperimentFlags, Switch, run_job
from idgbr.config.tree import Experiment


class Flags(ExperimentFlags):
    """Flags of the pipeline."""

    start: str = Field("", alias="from")
    """Model both stages start from: models:/NAME@ALIAS, models:/NAME/VERSION or a model folder."""
    fresh: Switch = False
    """Forget earlier runs of the same experiment instead of continuing them."""
    dry_run: Switch = Field(False, alias="dry-run")
    """Say what training the refiner would take (parameters, FLOP, memory, data), and do nothing."""


def main(flags: Flags, experiment: Experiment) -> dict[str, Any]:
    """Runs the pipeline."""
    if flags.dry_run:
        from idgbr.training.dry_run import dry_run

        return dry_run(experiment)
    from idgbr.distributed.pipeline import run_pipeline

    return run_pipeline(experiment, flags.fresh, flags.start).outputs()


if __name__ == "__main__":
    run_job(main, Flags, __doc__)
