"""What a figure is pooled from, piece by piece: the form in which it can be resampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from idgbr.evaluation.boundary import KERNELS
from idgbr.evaluation.fragments import fragment_density, length_ratio, region_ratio
from idgbr.evaluation.region import f1_per_class, iou_per_class, mean, ratio
from idgbr.evaluation.scores import boundary_f1, boundary_iou
from idgbr.evaluation.tally import Tally

Statistic = Callable[[np.ndarray], np.ndarray]
"""From counts pooled over pieces, (R, ...), to one figure per resample, (R,)."""

_PER_CLASS: dict[str, tuple[str, Statistic]] = {
    "iou": ("confusion", iou_per_class),
    "f1": ("confusion", f1_per_class),
    "boundary_iou": ("boundary_iou", boundary_iou),
    "boundary_f1": ("boundary_f1", boundary_f1),
}
"""Figures that exist per class: the counts of a tally they come from, and how."""
_RATIOS: dict[str, tuple[str, Statistic]] = {
    "regions": ("region_counts", region_ratio),
    "boundary_length": ("boundary_length", length_ratio),
}
"""Ratios of map to truth, pooled over the classes: the counts of a tally they come from, and how."""
_MEANS = {"miou": "iou", "mean_f1": "f1", "boundary_iou": "boundary_iou", "boundary_f1": "boundary_f1"}
"""Figures that are means over classes."""


@dataclass(frozen=True)
class Pieces:
    """Counts of the pieces a figure is pooled over, and the way from pooled counts to the figure.

    Attributes:
        counts: (n, ...) counts of n blocks, or of n images for WFm.
        statistic: from pooled counts, (R, ...), to the figure, (R,).
    """

    counts: np.ndarray
    statistic: Statistic


def pieces_of(tally: Tally, figure: str, class_id: int | None = None) -> Pieces:
    """The pieces of a figure.

    Which blocks or images take part depends on the truth alone, so that the pieces of two methods on the same regions
    are paired.

    Args:
        tally: what was counted.
        figure: miou, accuracy, mean_f1, boundary_iou, boundary_f1, wfmK_edge, repair_worse, fragments, regions or
            boundary_length; regions_error and boundary_length_error are the distances of the two ratios from 1. With
            `class_id` iou, f1, boundary_iou or boundary_f1 of that class.
        class_id: one class instead of the mean over classes.

    Raises:
        ValueError: no such figure.
    """
    labelled = tally.confusion.sum((1, 2)) > 0
    if class_id is not None and figure in _PER_CLASS:
        counts, statistic = _PER_CLASS[figure]
        return Pieces(getattr(tally, counts)[labelled], lambda pooled: statistic(pooled)[..., class_id])
    if figure in _MEANS:
        counts, statistic = _PER_CLASS[_MEANS[figure]]
        return Pieces(getattr(tally, counts)[labelled], lambda pooled: mean(statistic(pooled)))
    if figure == "accuracy":
        return Pieces(tally.confusion[labelled], _accuracy)
    if figure == "fragments":
        fragments = tally.region_counts[labelled, :, 1].sum(1)
        counts_of = np.stack([fragments, tally.confusion[labelled].sum((1, 2))], axis=-1)
        return Pieces(counts_of, lambda pooled: fragment_density(pooled[..., 0], pooled[..., 1]))
    name = figure.removesuffix("_error")
    if name in _RATIOS:
        counts, statistic = _RATIOS[name]
        summed = getattr(tally, counts)[labelled].sum(1)
        return Pieces(summed, statistic if name == figure else lambda pooled: np.abs(statistic(pooled) - 1.0))
    if figure == "repair_worse":
        right, kept, wrong, fixed = tally.repair[labelled].T
        return _share(kept + fixed < right, right + wrong > 0)
    for i, kernel in enumerate(KERNELS):
        if figure == f"wfm{kernel}_edge":
            edge = tally.wfm[:, i, 0]
            # WFm is averaged over the images with true edges.
            return _share(np.nan_to_num(edge)[~np.isnan(edge)], np.ones(int((~np.isnan(edge)).sum())))
    raise ValueError(f"{figure} is no figure that can be resampled")


def _share(parts: np.ndarray, wholes: np.ndarray) -> Pieces:
    counts = np.stack([parts, wholes], axis=-1).astype(np.float64)
    return Pieces(counts, _ratio_of_columns)


def _ratio_of_columns(pooled: np.ndarray) -> np.ndarray:
    return ratio(pooled[..., 0], pooled[..., 1])


def _accuracy(pooled: np.ndarray) -> np.ndarray:
    right = np.diagonal(pooled, axis1=-2, axis2=-1).sum(-1)
    return ratio(right, pooled.sum((-2, -1)))
