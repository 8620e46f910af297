"""Train both stages and register the model; the test split is not read.

    python jobs/train.py --config configs/vaihingen.yaml
    python jobs/train.py --config configs/paper/potsdam.yaml --dry-run
    python jobs/train.py --config configs/vaihingen.yaml --from models:/idgbr-vaihingen@champion
    ray job submit --working-dir . --runtime-env configs/runtime_env.yaml -- \
        python jobs/train.py --config configs/vaihingen.yaml

Run again it continues where it ended, with any number of workers.
"""

from __future__ import annotations

from typing import Any, NoReturn

from pydantic import Field

from idgbr.cli import Switch, TrainingFlags, run_job
from idgbr.config.tree import Experiment


class Flags(TrainingFlags):
    """Flags of training."""

    dry_run: Switch = Field(False, alias="dry-run")
    """Print what training the refiner would cost (parameters, FLOP, memory, data), and stop."""


def main(flags: Flags, experiment: Experiment) -> dict[str, Any]:
    """Trains and registers."""
    if flags.dry_run:
        from idgbr.training.dry_run import dry_run

        return dry_run(experiment)
    from idgbr.distributed.flows.pipeline import run_training

    return run_training(experiment, flags.fresh, flags.start).outputs()


def run() -> NoReturn:
    """Runs the command and ends the process with its exit code."""
    run_job(main, Flags, __doc__)


if __name__ == "__main__":
    run()
