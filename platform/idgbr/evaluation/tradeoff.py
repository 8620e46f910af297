"""Quality against time: what every setting of the refiner costs, and what it gives at the boundary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from idgbr.evaluation.result import heading_of

FIGURES = ("wfm3_edge", "boundary_iou", "miou", "repair_worse")
"""Figures of the table; the first two are drawn."""
_COLOURS = {"diffusion": "#0b6e4f", "control": "#b5533c", "classical": "#7a5ea8", "coarse": "#6b7280"}


class Point(BaseModel):
    """One setting, measured with every seed.

    Attributes:
        name: What the setting is.
        kind: coarse, classical, diffusion or control.
        seconds: Seconds per megapixel on one core; None where it takes none of its own.
        scores: Figure to values in 0..1, one per seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    seconds: float | None
    scores: dict[str, list[float]]

    def mean(self, figure: str) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.scores[figure]))

    def spread(self, figure: str) -> float:
        """Half of the distance between the best and the worst seed."""
        return float(np.ptp(self.scores[figure])) / 2


def tradeoff_table(points: Sequence[Point], title: str) -> Table:
    """Means over the seeds in percent, with half of their range."""
    table = Table(title=title)
    for heading in ("setting", "kind", "s per megapixel", *map(heading_of, FIGURES)):
        table.add_column(heading, justify="left" if heading in ("setting", "kind") else "right")
    for point in points:
        seconds = "" if point.seconds is None else f"{point.seconds:.2f}"
        cells = [
            f"{100 * point.mean(f):.2f} ± {100 * point.spread(f):.2f}" if point.scores[f] else "–" for f in FIGURES
        ]
        table.add_row(point.name, point.kind, seconds, *cells)
    return table


def tradeoff_figure(points: Sequence[Point], title: str, path: str | Path) -> Path:
    """WFm(3) and boundary IoU over seconds per megapixel, as a PNG; a line marks the coarse map."""
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, name in zip(figure.subplots(1, 2), FIGURES[:2], strict=True):
        for kind, colour in _COLOURS.items():
            mine = [point for point in points if point.kind == kind]
            if kind == "coarse":
                for point in mine:
                    axis.axhline(100 * point.mean(name), color=colour, linestyle="--", label="coarse")
                continue
            if not mine:
                continue
            x, y = [p.seconds for p in mine], [100 * p.mean(name) for p in mine]
            axis.errorbar(x, y, [100 * p.spread(name) for p in mine], fmt="o", color=colour, label=kind, capsize=2)
            for point, at, up in zip(mine, x, y, strict=True):
                axis.annotate(point.name, (at, up), xytext=(4, 3), textcoords="offset points", fontsize=7)
        axis.set(xscale="log", xlabel="seconds per megapixel, one core", ylabel=f"{heading_of(name)}, percent")
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
    return Path(path)


def verdict(points: Sequence[Point], default: str) -> Mapping[str, float]:
    """The default setting against the best diffusion setting and against the control, in points of percent.

    Args:
        points: What was measured.
        default: Name of the default setting.

    Returns:
        For each of the two drawn figures: the gap to the best setting (0 or more), and, where there is a control, the
        gain over its best setting and the larger spread of the two.
    """
    chosen = next(point for point in points if point.name == default)
    control = [point for point in points if point.kind == "control"]
    found: dict[str, float] = {}
    for figure in FIGURES[:2]:
        best = max(point.mean(figure) for point in points if point.kind == "diffusion")
        found[f"{figure} below the best"] = round(100 * (best - chosen.mean(figure)), 3)
        if control:
            rival = max(control, key=lambda point: point.mean(figure))
            found[f"{figure} above the control"] = round(100 * (chosen.mean(figure) - rival.mean(figure)), 3)
            found[f"{figure} spread"] = round(100 * max(chosen.spread(figure), rival.spread(figure)), 3)
    return found
