"""Sections `evaluation` and `gate`: settings of the evaluation, and rules for the promotion of a new version."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from idgbr.config.data import Source
from idgbr.config.node import Node, Unit


class EvaluationConfig(Node):
    baselines: list[Literal["guided_filter", "grabcut", "densecrf"]] = ["guided_filter", "grabcut", "densecrf"]
    """Classical refiners in the table; DenseCRF is measured only if pydensecrf2 is installed."""
    block: int = Field(256, ge=16)
    """Side in pixels of the blocks of the repair figures and the bootstrap."""
    fragment: int = Field(16, ge=1)
    """Minimum mapping unit of the figure `fragments` in pixels: a 4-connected region of fewer pixels is a fragment. It
    measures maps and changes none (sampler.min_region does); figures compare only where it is the same."""
    bootstrap: int = Field(1000, ge=0)
    """Resamples of blocks for the intervals."""
    report_windows: int = Field(3, ge=1)
    """Number of windows shown in each of the groups best, median and worst."""


Figure = Literal["miou", "accuracy", "mean_f1", "boundary_iou", "boundary_f1", "wfm3_edge", "wfm5_edge", "wfm7_edge"]
Ratio = Literal["regions", "boundary_length"]
"""Figures that are ratios to the truth, best at 1."""
RatioError = Literal["regions_error", "boundary_length_error"]
"""Distances of those ratios from 1."""
NonNegative = Annotated[float, Field(ge=0.0)]


class GainConfig(Node):
    """The rule for an improvement, on a single figure to avoid multiple testing."""

    figure: Figure = "boundary_iou"
    least: Unit = 0.0
    """Smallest gain over the champion for a promotion; in any case its confidence interval must be above zero."""


class GateConfig(Node):
    """The rules for a new champion. Figures are those of the refined maps; shares are in 0..1."""

    promote: bool = False
    """Pipeline: run the gate on the version it registers."""
    source: Source | None = None
    """Scenes of the gate, with labels as in `data.label`; if the source lists splits, the scenes of its test split are
    used. Empty: the test split of `data`. Scenes in the training area of a model are refused."""
    floors: dict[Figure, Unit] = {}
    """Minimum of a figure, with or without a champion; the first promotion needs floors and ceilings only."""
    ceilings: dict[
        Ratio | Literal["repair_worse", "fragments", "seconds_per_megapixel", "megabytes"],
        Annotated[float, Field(gt=0)],
    ] = {"repair_worse": 0.5}
    """Maximum of a figure: share of blocks that refinement made worse; regions and boundary length over the truth's;
    fragments per million labelled pixels; seconds per megapixel; megabytes of the model folder."""
    margins: dict[Figure | RatioError | Literal["repair_worse", "fragments"], NonNegative] = {
        "miou": 0.01,
        "boundary_iou": 0.01,
        "wfm3_edge": 0.01,
        "repair_worse": 0.1,
        "fragments": 100.0,
        "boundary_length_error": 0.05,
    }
    """How much worse than the champion's a figure may be: shares in 0..1, `fragments` per million labelled pixels,
    `regions_error` and `boundary_length_error` as distances of the ratio to the truth from 1."""
    class_margins: dict[Literal["iou", "f1", "boundary_iou", "boundary_f1"], Unit] = {"iou": 0.03, "boundary_iou": 0.03}
    """The same for the figures of every class."""
    gain: GainConfig = GainConfig()
    slowdown: float = Field(2.0, ge=1.0)
    """Largest allowed ratio of a model's seconds per megapixel to the champion's."""
    blocks: int = Field(20, ge=2)
    """Minimum number of labelled blocks in the scenes of the gate; with fewer, confidence intervals are meaningless."""

    @field_validator("margins")
    @classmethod
    def _shares_are_fractions(cls, margins: dict[str, float]) -> dict[str, float]:
        for figure, margin in margins.items():
            if margin > 1 and figure != "fragments" and not figure.endswith("_error"):
                raise ValueError(f"{figure}: found {margin:g}; expected a share in 0..1 (0.01 is one point)")
        return margins
