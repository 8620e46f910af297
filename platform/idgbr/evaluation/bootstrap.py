"""Paired bootstrap over blocks: how sure a difference between two methods is."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from idgbr.evaluation.pieces import Statistic, pieces_of
from idgbr.evaluation.scores import Score
from idgbr.evaluation.tally import Tally


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


def compare(
    before: Tally,
    after: Tally,
    figure: str,
    class_id: int | None = None,
    repeats: int = 1000,
    seed: int = 0,
) -> Interval:
    """Interval of after minus before in one figure, see `pieces_of`.

    Raises:
        ValueError: the tallies are of different regions, or no such figure.
    """
    if before.regions != after.regions:
        raise ValueError("the two tallies are of different regions")
    a, b = pieces_of(before, figure, class_id), pieces_of(after, figure, class_id)
    return paired_interval(a.counts, b.counts, a.statistic, repeats, seed, figure)


def intervals(coarse: Tally, refined: Tally, repeats: int = 1000, seed: int = 0) -> list[Interval]:
    """Intervals of refined minus coarse in WFm(3) edge, boundary IoU and mIoU.

    WFm is resampled by the images it is averaged over (those with true edges), the others by blocks.

    Raises:
        ValueError: the tallies are of different regions.
    """
    return [compare(coarse, refined, f, None, repeats, seed) for f in ("wfm3_edge", "boundary_iou", "miou")]
