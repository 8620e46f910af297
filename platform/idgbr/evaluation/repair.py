"""What refinement did to a coarse map: how much of its errors it repaired, and what it broke."""

from __future__ import annotations

import numpy as np

from idgbr import IGNORE
from idgbr.evaluation.blocks import Blocks
from idgbr.evaluation.region import ratio

PENALTY = 1.0
"""Weight k of harm done to pixels the coarse map had right."""
COMPLETE = 0.8
"""Least IoU_imp of a complete repair."""


def repair_counts(refined: np.ndarray, coarse: np.ndarray, truth: np.ndarray, blocks: Blocks) -> np.ndarray:
    """Pixels behind the repair figures, per block.

    Args:
        refined: (H, W) predicted class ids.
        coarse: (H, W) class ids of the map it came from.
        truth: (H, W) true class ids, IGNORE where there is no label.
        blocks: the blocks of (H, W).

    Returns:
        (blocks, 4) int64: pixels the coarse map has right (R_T), those of them still right, pixels it has wrong
        (R_F), those of them now right.
    """
    valid = truth != IGNORE
    was, now = (coarse == truth) & valid, (refined == truth) & valid
    wrong = valid & ~was
    return np.stack([blocks.sums(m) for m in (was, was & now, wrong, wrong & now)], axis=-1)


def iou_imp(counts: np.ndarray, penalty: float = PENALTY) -> np.ndarray:
    """IoU_imp = IoU on R_F - penalty (1 - IoU on R_T), of counts (..., 4).

    IoU within a set of pixels pools the classes: intersections over unions, each summed over the classes, which is
    right / (2 all - right). (A mean over classes would let a single stray pixel of a rare class decide a block.)

    Returns:
        (...,) float64, at most 1. Where nothing was right, no harm can be done: IoU on R_T is 1. Where nothing was
        wrong, nothing can be repaired: NaN if nothing was broken either, else the harm alone.
    """
    right, kept, wrong, fixed = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    harm = 1.0 - np.where(right > 0, ratio(kept, 2 * right - kept), 1.0)
    gain = np.where(wrong > 0, ratio(fixed, 2 * wrong - fixed), np.where(harm > 0, 0.0, np.nan))
    return gain - penalty * harm


def repair_shares(counts: np.ndarray) -> dict[str, float]:
    """Shares of blocks in 0..1, of counts (blocks, 4); NaN where no block qualifies.

    Returns:
        complete (IoU_imp >= 80 %), partial (0 to 80 %), damage (< 0): of the blocks with anything repaired, repairable
        or broken; worse: blocks with fewer right pixels than in the coarse map, of the labelled blocks;
        iou_imp: of all pixels pooled.
    """
    score = iou_imp(counts)
    score = score[~np.isnan(score)]
    labelled = counts[:, 0] + counts[:, 2] > 0
    worse = (counts[:, 1] + counts[:, 3] < counts[:, 0]) & labelled

    def share(hits: np.ndarray, of: int) -> float:
        return float(hits.sum()) / of if of else float("nan")

    return {
        "complete": share(score >= COMPLETE, score.size),
        "partial": share((score >= 0) & (score < COMPLETE), score.size),
        "damage": share(score < 0, score.size),
        "worse": share(worse, int(labelled.sum())),
        "iou_imp": float(iou_imp(counts.sum(0))),
    }
