"""Paired bootstrap over blocks: how sure a difference between two methods is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import BaseModel, ConfigDict

from idgbr.evaluation.region import iou_per_class, mean, ratio
from idgbr.evaluation.scores import Score, boundary_iou
from idgbr.evaluation.tally import Tally

Statistic = Callable[[np.ndarray], np.ndarray]
"""From counts pooled over blocks, (R, ...), to one figure per resample, (R,)."""


class Interval(BaseModel):
    """A difference between two methods and its 95 % interval; None where there was nothing to measure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    difference: Score
    low: Score = None
    high: Score = None
    units: int
    """Blocks, or images for WFm, that were resampled."""

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.low is not None and self.low > 0


def paired_interval(
    blocks_a: np.ndarray,
    blocks_b: np.ndarray,
    statistic: Statistic,
    repeats: int = 1000,
    seed: int = 0,
    metric: str = "",
) -> Interval:
    """Percentile interval of statistic(b) - statistic(a), resampling blocks that both methods share.

    Every resample draws as many blocks as there are, with replacement, the same for both methods; their counts are
    pooled before the statistic is taken, as the reported figure pools them.

    Args:
        blocks_a: (n, ...) counts of n blocks.
        blocks_b: the same of the method that should be better, for the same blocks.
        statistic: figure of pooled counts.
        repeats: number of resamples; 0 gives no interval.
        seed: of the resampling.
        metric: name of the figure.

    Raises:
        ValueError: the two are not paired.
    """
    if blocks_a.shape != blocks_b.shape:
        raise ValueError(f"blocks of shape {blocks_a.shape} and {blocks_b.shape} are not paired")
    units = len(blocks_a)
    if units == 0:
        return Interval(metric=metric, difference=None, units=0)
    difference = float((statistic(blocks_b.sum(0)[None]) - statistic(blocks_a.sum(0)[None]))[0])
    if repeats == 0 or np.isnan(difference):
        return Interval(metric=metric, difference=difference, units=units)
    rng = np.random.default_rng(seed)
    times_drawn = rng.multinomial(units, np.full(units, 1.0 / units), size=repeats).astype(np.float64)
    a, b = (
        statistic((times_drawn @ blocks.reshape(units, -1)).reshape(repeats, *blocks.shape[1:]))
        for blocks in (blocks_a.astype(np.float64), blocks_b.astype(np.float64))
    )
    change = (b - a)[~np.isnan(b - a)]
    low, high = np.percentile(change, [2.5, 97.5]) if change.size else (np.nan, np.nan)
    return Interval(metric=metric, difference=difference, low=low, high=high, units=units)


def intervals(coarse: Tally, refined: Tally, repeats: int = 1000, seed: int = 0) -> list[Interval]:
    """Intervals of refined minus coarse in WFm(3) edge, boundary IoU and mIoU.

    WFm is resampled by the images it is averaged over (those with true edges), the others by blocks.

    Raises:
        ValueError: the tallies are of different regions.
    """
    if coarse.regions != refined.regions:
        raise ValueError("the two tallies are of different regions")
    edge = [np.stack([np.nan_to_num(t.wfm[:, 0, 0]), ~np.isnan(t.wfm[:, 0, 0])], axis=-1) for t in (coarse, refined)]
    with_edges = edge[0][:, 1] > 0
    labelled = coarse.confusion.sum((1, 2)) > 0
    pieces: list[tuple[str, np.ndarray, np.ndarray, Statistic]] = [
        ("wfm3_edge", edge[0][with_edges], edge[1][with_edges], lambda s: ratio(s[..., 0], s[..., 1])),
        (
            "boundary_iou",
            coarse.boundary_iou[labelled],
            refined.boundary_iou[labelled],
            lambda s: mean(boundary_iou(s)),
        ),
        ("miou", coarse.confusion[labelled], refined.confusion[labelled], lambda s: mean(iou_per_class(s))),
    ]
    return [paired_interval(a, b, statistic, repeats, seed, name) for name, a, b, statistic in pieces]
