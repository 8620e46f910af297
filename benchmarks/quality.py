"""Quality of the refiner against what it costs: steps, samples, solver, start, guards, and the one-shot control.

python jobs/benchmark.py quality --config configs/vaihingen.yaml
python jobs/benchmark.py quality --config configs/vaihingen.yaml --split test --seeds 0,1,2 --settings default
python jobs/benchmark.py quality --config configs/demo.yaml --settings steps=10 --settings samples=8 --control []

Trains what is not trained yet: the refiner, and for a control the same network on the same draws with cross-entropy and
no noise. Choose on select, claim on test. Writes a figure (seconds per megapixel against WFm(3) and boundary IoU), a
table and JSON to STORAGE/benchmarks.
"""

from __future__ import annotations

import re
from typing import Literal

import yaml
from pydantic import Field

from idgbr.cli import ExperimentFlags
from idgbr.config.load import validate
from idgbr.config.models import SamplerConfig
from idgbr.config.tree import Experiment
from idgbr.errors import UserError

GRID = [
    "default",
    *(f"steps={steps},samples=1" for steps in (1, 2, 4, 10, 25)),
    *(f"samples={samples}" for samples in (1, 2, 8)),
    "steps=4,solver=dpmsolver++",
    "steps=10,solver=dpmsolver++",
    "guidance=0.5",
    "guidance=2.0",
    "steps=4,guidance=2.0,guidance_interval=[0.25,0.75]",
    "start=coarse,strength=0.3",
    "start=coarse,strength=0.7",
    "dihedral=false",
    "keep_disagreement=0.1",
    "keep_disagreement=0.2",
    "keep_beyond=8",
    "keep_beyond=16",
    "samples=1,coarse_vote=1000",
]
"""Settings that are measured where none are named; the last is the coarse map's mean field without the denoiser."""


class Flags(ExperimentFlags):
    """Flags of the quality benchmark."""

    split: Literal["select", "test"] = "select"
    """Which split to measure on."""
    settings: list[str] = GRID
    """Each `default`, or some of the sampler's keys, KEY=VALUE,KEY=VALUE; the others stay as configured."""
    seeds: list[int] = Field([0], min_length=1)
    """Seeds of stage 2's training; their spread is in the table."""
    control: list[int] = [1, 4, 8]
    """Numbers of samples with which the one-shot control is measured; empty: it is not trained."""


def main(flags: Flags, experiment: Experiment) -> dict[str, object]:
    """Trains, maps, measures."""
    from idgbr.distributed.flows.quality import DEFAULT, Setting, run_quality

    names = list(dict.fromkeys([DEFAULT, *flags.settings]))
    settings = [Setting(name, "diffusion", _sampler(name, experiment.sampler)) for name in names]
    for samples in flags.control:
        sampler = experiment.sampler.model_copy(update={"steps": 1, "samples": samples, "dihedral": True})
        settings.append(Setting(f"one-shot x {samples}", "control", sampler))
    return run_quality(experiment, settings, flags.split, flags.seeds)


def _sampler(text: str, base: SamplerConfig) -> SamplerConfig:
    if text == "default":
        return base
    pairs: dict[str, object] = {}
    for part in re.split(r",(?![^\[{]*[\]}])", text):  # commas inside of brackets belong to a value
        key, found, value = part.partition("=")
        if not found:
            raise UserError(f"--settings: found {part!r} in {text!r}; expected KEY=VALUE, such as steps=4")
        pairs[key] = yaml.safe_load(value)
    return validate(SamplerConfig, {**base.model_dump(), **pairs}, f"--settings {text}")
