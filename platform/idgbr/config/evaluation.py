"""Sections `evaluation` and `gate`: what is measured, and what a new version has to show."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from idgbr.config.data import Source
from idgbr.config.node import Node, Unit


class EvaluationConfig(Node):
    baselines: list[Literal["guided_filter", "grabcut", "densecrf"]] = ["guided_filter", "grabcut", "densecrf"]
    """Classical refiners in the table; DenseCRF only where pydensecrf2 is installed."""
    block: int = Field(256, ge=16)
    """Side in pixels of the blocks of the repair figures and the bootstrap."""
    bootstrap: int = Field(1000, ge=0)
    """Resamples of blocks for the intervals."""
    report_windows: int = Field(3, ge=1)
    """Best, median and worst windows shown, of each so many."""


Figure = Literal["miou", "accuracy", "mean_f1", "boundary_iou", "boundary_f1", "wfm3_edge", "wfm5_edge", "wfm7_edge"]


class GainConfig(Node):
    """What makes a model better: one figure, so that luck has one chance only."""

    figure: Figure = "boundary_iou"
    least: Unit = 0.0
    """Smallest gain over the champion that is worth a change; the interval of the gain lies above zero in any case."""


class GateConfig(Node):
    """What a new version has to show before it becomes champion. Figures are those of the refined maps, in 0..1."""

    promote: bool = False
    """Pipeline: put the version it registers through the gate at once."""
    source: Source | None = None
    """Scenes of the gate, labelled as `data.label` says; of a source that lists splits, those of its test split. Empty:
    the test split of `data`. Ground that a model was trained or tuned on is refused."""
    floors: dict[Figure, Unit] = {}
    """Least value of a figure, with or without a champion; all that a first promotion needs."""
    ceilings: dict[Literal["repair_worse", "seconds_per_megapixel", "megabytes"], Annotated[float, Field(gt=0)]] = {
        "repair_worse": 0.5
    }
    """Most of what should be little: share of blocks that refinement made worse, cost, size of the model folder."""
    margins: dict[Figure | Literal["repair_worse"], Unit] = {
        "miou": 0.01,
        "boundary_iou": 0.01,
        "wfm3_edge": 0.01,
        "repair_worse": 0.1,
    }
    """How much worse than the champion's a figure may be."""
    class_margins: dict[Literal["iou", "f1", "boundary_iou", "boundary_f1"], Unit] = {"iou": 0.03, "boundary_iou": 0.03}
    """The same for the figures of every single class."""
    gain: GainConfig = GainConfig()
    slowdown: float = Field(2.0, ge=1.0)
    """How many times the champion's seconds per megapixel a model may take."""
    blocks: int = Field(20, ge=2)
    """Fewest labelled blocks a gate may stand on: with fewer the intervals say little."""
