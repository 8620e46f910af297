"""Measure a model on a split of a data set; writes one HTML report.

python jobs/evaluate.py --config configs/demo.yaml --model models:/idgbr-demo@challenger
python jobs/evaluate.py --config configs/demo.yaml --model runs/results/NAME/model --split select
python jobs/evaluate.py --config configs/demo.yaml --model MODEL --split select --configured --sampler.steps 4
python jobs/evaluate.py --config configs/demo.yaml --model MODEL --backbone OTHER
"""

from __future__ import annotations

from typing import Literal, NoReturn

from idgbr.cli import ExperimentFlags, Switch, run_job
from idgbr.config.tree import Experiment


class Flags(ExperimentFlags):
    """Flags of evaluation."""

    model: str
    """models:/NAME@ALIAS, models:/NAME/VERSION or a model folder."""
    split: Literal["select", "test"] = "test"
    """Which split to measure on."""
    backbone: str = ""
    """Another model, whose stage 1 makes the coarse maps: does the refiner help a backbone it never saw?"""
    configured: Switch = False
    """Sample as the configuration says (--sampler.steps 4), not as the model does by default."""
    fresh: Switch = False
    """Make the maps again, even where they are there."""


def main(flags: Flags, experiment: Experiment) -> dict[str, str]:
    """Evaluates."""
    from idgbr.distributed.flows.pipeline import run_evaluation

    return run_evaluation(experiment, flags.model, flags.split, flags.fresh, flags.backbone, flags.configured).outputs()


def run() -> NoReturn:
    """Runs the command and ends the process with its exit code."""
    run_job(main, Flags, __doc__)


if __name__ == "__main__":
    run()
