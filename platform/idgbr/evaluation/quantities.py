"""Figures by name: heading, unit and direction, and how a value is printed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from idgbr.evaluation.bootstrap import Interval


@dataclass(frozen=True)
class Quantity:
    """What a figure is.

    Attributes:
        heading: its name in tables.
        unit: percent (a share in 0..1), ratio (to the truth), density (per million labelled pixels) or plain.
        better: the direction of improvement; `one` is a ratio that is best at 1.
    """

    heading: str
    unit: Literal["percent", "ratio", "density", "plain"] = "percent"
    better: Literal["higher", "lower", "one"] = "higher"


QUANTITIES: Mapping[str, Quantity] = {
    "miou": Quantity("mIoU"),
    "accuracy": Quantity("accuracy"),
    "mean_f1": Quantity("mean F1"),
    "boundary_iou": Quantity("boundary IoU"),
    "boundary_f1": Quantity("boundary F1"),
    "wfm3_edge": Quantity("WFm(3) edge"),
    "wfm3_min": Quantity("WFm(3) min"),
    "wfm5_edge": Quantity("WFm(5)"),
    "wfm7_edge": Quantity("WFm(7)"),
    "repair_worse": Quantity("blocks made worse", better="lower"),
    "repair_damage": Quantity("damage", better="lower"),
    "regions": Quantity("regions / truth", "ratio", "one"),
    "fragments": Quantity("fragments per Mpx", "density", "lower"),
    "boundary_length": Quantity("boundary length / truth", "ratio", "one"),
    "regions_error": Quantity("regions / truth, distance from 1", "ratio", "lower"),
    "boundary_length_error": Quantity("boundary length / truth, distance from 1", "ratio", "lower"),
    "iou_imp": Quantity("IoU_imp, pooled over classes"),
    "iou_imp_per_class": Quantity("IoU_imp per class (IDGBR release), mean"),
    "seconds_per_megapixel": Quantity("seconds per megapixel", "plain", "lower"),
    "megabytes": Quantity("megabytes", "plain", "lower"),
}
"""The figures by their names in `Scores` and in the configuration. Others are shares that should be high."""

COLUMNS = (
    "miou", "accuracy", "boundary_iou", "boundary_f1", "wfm3_edge", "wfm3_min", "wfm5_edge", "wfm7_edge",
    "repair_worse", "regions", "fragments", "boundary_length",
)  # fmt: skip
"""Figures of the tables, in their order."""


def quantity(figure: str) -> Quantity:
    """What a figure, or a figure of one class ("iou of road", "class_iou"), is."""
    name = figure.partition(" of ")[0].removeprefix("class_")
    return QUANTITIES.get(name) or Quantity(figure.replace("_", " "))


def heading_of(figure: str) -> str:
    """A figure's heading; of a figure of one class its name as it is."""
    return figure if " of " in figure else quantity(figure).heading


def shown(figure: str, value: float | None, signed: bool = False) -> str:
    """A value in the figure's unit, without the unit; a dash where there is none."""
    if value is None:
        return "–"
    scale, form = {"percent": (100.0, ".2f"), "ratio": (1.0, ".2f"), "density": (1.0, ",.0f"), "plain": (1.0, ".4g")}[
        quantity(figure).unit
    ]
    return format(scale * value, f"{'+' if signed else ''}{form}")


def percent(value: float | None, signed: bool = False) -> str:
    """A share in percent with two decimals; a dash where there is none."""
    return shown("", value, signed)


def with_unit(figure: str, text: str, change: bool = False) -> str:
    """A printed value with its unit: "%", or "points" for a change of a share; ratios have none."""
    unit = {"percent": "points" if change else "%", "density": "per million px"}.get(quantity(figure).unit, "")
    return f"{text} {unit}".rstrip()


def describe(interval: Interval) -> str:
    """Difference and interval in the figure's unit (shares: points)."""
    low, high = (shown(interval.metric, bound, signed=True) for bound in (interval.low, interval.high))
    difference = shown(interval.metric, interval.difference, signed=True)
    return difference if interval.low is None or interval.high is None else f"{difference} ({low} to {high})"


def best_methods(figure: str, values: Mapping[str, float | None]) -> set[str]:
    """Methods with the best value of a figure, as printed; empty with fewer than two to compare.

    Args:
        figure: the figure.
        values: method -> value.
    """
    printed = {
        method: float(shown(figure, value).replace(",", "")) for method, value in values.items() if value is not None
    }
    if len(printed) < 2:
        return set()
    better = quantity(figure).better
    cost = {
        method: {"higher": -value, "lower": value, "one": abs(math.log(max(value, 1e-9)))}[better]
        for method, value in printed.items()
    }
    lowest = min(cost.values())
    return {method for method, value in cost.items() if value == lowest}
