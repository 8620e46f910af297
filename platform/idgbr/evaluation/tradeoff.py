"""Quality against time: what every setting of the refiner costs, and what it gives at the boundary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from idgbr.evaluation.quantities import heading_of, shown

FIGURES = ("wfm3_edge", "boundary_iou", "miou", "repair_worse", "regions", "fragments", "boundary_length")
"""Figures of the table; the first two are drawn."""
_COLOURS = {"diffusion": "#0b6e4f", "control": "#b5533c", "classical": "#7a5ea8", "coarse": "#6b7280"}
_LABEL_PIXELS = 14  # height of a number in the figure, before it is drawn at a higher resolution


class Point(BaseModel):
    """One setting, measured with every seed.

    Attributes:
        name: Name of the setting.
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
    """Means over the seeds with half of their range; shares in percent."""
    table = Table(title=title)
    for heading in ("setting", "kind", "s per megapixel", *map(heading_of, FIGURES)):
        table.add_column(heading, justify="left" if heading in ("setting", "kind") else "right")
    for point in points:
        seconds = "" if point.seconds is None else f"{point.seconds:.2f}"
        cells = [
            f"{shown(f, point.mean(f))} ± {shown(f, point.spread(f))}" if point.scores[f] else "–" for f in FIGURES
        ]
        table.add_row(point.name, point.kind, seconds, *cells)
    return table


def tradeoff_figure(points: Sequence[Point], title: str, path: str | Path) -> Path:
    """WFm(3) and boundary IoU over seconds per megapixel, as a PNG; a line marks the coarse map.

    Points are numbered, and overlapping points share one label; a list beside the axes names them.
    """
    figure = Figure(figsize=(15, max(5.5, 0.22 * len(points))), layout="constrained")
    FigureCanvasAgg(figure)
    *axes, key = figure.subplots(1, 3, width_ratios=(5, 5, 3))
    drawn = [point for point in points if point.kind != "coarse" and point.seconds is not None]
    for axis, name in zip(axes, FIGURES[:2], strict=True):
        for point in points:
            if point.kind == "coarse":
                axis.axhline(100 * point.mean(name), color=_COLOURS["coarse"], linestyle="--")
        for point in drawn:
            spread = 100 * point.spread(name)
            colour = _COLOURS[point.kind]
            axis.errorbar(point.seconds, 100 * point.mean(name), spread, fmt="o", color=colour, capsize=2)
        axis.set(xscale="log", xlabel="seconds per megapixel, one core", ylabel=f"{heading_of(name)}, percent")
        axis.margins(x=0.15)
        axis.grid(alpha=0.3)
    kinds = [kind for kind in _COLOURS if any(point.kind == kind for point in points)]
    axes[0].legend([Patch(color=_COLOURS[kind]) for kind in kinds], kinds, fontsize=8)
    figure.suptitle(title)
    _write_key(key, points, drawn)
    figure.draw_without_rendering()  # fixes the axes, and with them the positions of points in pixels
    for axis, name in zip(axes, FIGURES[:2], strict=True):
        positions = [(point.seconds, 100 * point.mean(name)) for point in drawn]
        for position, numbers in _grouped(positions, axis.transData.transform(positions) if positions else []):
            text = ", ".join(str(number + 1) for number in numbers)
            axis.annotate(text, position, xytext=(5, 4), textcoords="offset points", fontsize=8)
    figure.savefig(path, dpi=130)
    return Path(path)


def _write_key(axis: Axes, points: Sequence[Point], drawn: Sequence[Point]) -> None:
    """The names of the numbered points, in the colour of their kind."""
    axis.axis("off")
    lines = [("coarse map", "coarse")] if len(points) > len(drawn) else []
    lines += [(f"{number}  {point.name}", point.kind) for number, point in enumerate(drawn, 1)]
    for row, (text, kind) in enumerate(lines):
        axis.text(0, 1 - row / max(len(lines), 12), text, color=_COLOURS[kind], fontsize=7.5, va="top")


def _grouped(positions: Sequence[Any], pixels: Any) -> list[tuple[Any, list[int]]]:
    """Groups of points closer than the height of a label: the position of the first, and the indices of all."""
    groups: list[list[int]] = []
    for index, pixel in enumerate(pixels):
        near = (group for group in groups if np.abs(pixel - pixels[group[0]]).max() < _LABEL_PIXELS)
        group = next(near, None)
        if group is None:
            groups.append([index])
        else:
            group.append(index)
    return [(positions[group[0]], group) for group in groups]


def verdict(points: Sequence[Point], default: str) -> Mapping[str, float]:
    """The default setting against the best diffusion setting and against the control, in points of percent.

    Args:
        points: Measured settings.
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
