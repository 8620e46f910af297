"""How often the gate errs: simulated models of known quality on windows of real labels.

    python jobs/benchmark.py gate --config configs/demo.yaml
    python jobs/benchmark.py gate --config configs/vaihingen.yaml

Two models of equal quality and independent errors should hardly ever pass for different; a true gain of two points of
boundary IoU should be found. The default rules of the gate are judged as a whole, margins per class included.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field
from rich.console import Console
from rich.table import Table

from idgbr.cli import ExperimentFlags
from idgbr.config.tree import Experiment


class Flags(ExperimentFlags):
    """Flags of the benchmark."""

    windows: int = Field(400, ge=20)
    """Windows of a gate."""
    repeats: int = Field(200, ge=1)
    """Gates of each kind."""
    size: int = Field(128, ge=64)
    """Side of a window in pixels."""
    pool: int = Field(200, ge=10)
    """Different windows the gates are drawn from, at most."""
    gain: float = Field(0.02, gt=0, lt=1)
    """True gain in boundary IoU that should be found."""


def main(flags: Flags, experiment: Experiment) -> dict[str, object]:
    """Runs the trials and prints their table."""
    from idgbr.datasets.catalogue import catalogue
    from idgbr.datasets.prepare import prepare_region
    from idgbr.datasets.splits import split_regions
    from idgbr.evaluation.maps import read_ids
    from idgbr.evaluation.trials import Trials, cut_labels

    data = experiment.data
    folder = str(Path(experiment.resources.storage).resolve() / "data")
    regions = [prepare_region(region, data, folder) for region in split_regions(catalogue(data), data.split)]
    windows = [window for region in regions for window in cut_labels(read_ids(region.label), flags.size)]
    chosen = np.random.default_rng(0).permutation(len(windows))[: flags.pool]
    trials = Trials([windows[i] for i in chosen], len(data.classes))
    table = Table(
        title=f"{data.name}: {flags.repeats} gates of {flags.windows} windows, out of {len(chosen)} of {flags.size} px",
        caption="boundary IoU, points; pooled over the windows of a gate",
    )
    headings = ("true gain", "promoted", "mean gain", "paired spread", "interval, half", "intervals that hold it")
    for heading in headings:
        table.add_column(heading, justify="right")
    shares = {}
    for gain in (0.0, flags.gain):
        found = trials.run(gain, flags.windows, flags.repeats)
        shares[f"promoted_at_{gain:g}"] = found.promoted
        points = (f"{100 * value:.2f}" for value in (found.gain, found.spread, found.half_width))
        table.add_row(f"{100 * gain:.2f}", f"{found.promoted:.1%}", *points, f"{found.covered:.1%}")
    Console(width=110).print(table)
    return dict(shares)
