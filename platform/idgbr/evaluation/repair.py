"""What refinement did to a coarse map: how much of its errors it repaired, and what it broke."""

from __future__ import annotations

import numpy as np

from idgbr import IGNORE
from idgbr.evaluation.blocks import Blocks
from idgbr.evaluation.region import mean, ratio

PENALTY = 1.0
"""Weight k of harm done to pixels the coarse map had right."""
COMPLETE = 0.8
"""Lowest IoU_imp of a complete repair."""


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


def class_repair_counts(
    refined: np.ndarray, coarse: np.ndarray, truth: np.ndarray, classes: int, blocks: Blocks
) -> np.ndarray:
    """Pixels behind the repair figures per class as the IDGBR release states them (since April 2026).

    Of one class, M_RT holds the true positives of the coarse map (truth and coarse both), M_RF the symmetric
    difference of truth and coarse (union minus intersection).

    Args:
        refined: (H, W) predicted class ids.
        coarse: (H, W) class ids of the map it came from.
        truth: (H, W) true class ids, IGNORE where there is no label.
        classes: number of classes K.
        blocks: the blocks of (H, W).

    Returns:
        (blocks, K, 5) int64: pixels of M_RT; of those in the refined map's class (the intersection; the union is M_RT);
        pixels of M_RF; intersection and union of truth and refined map within M_RF.
    """
    counts = np.zeros((len(blocks), classes, 5), dtype=np.int64)
    valid = truth != IGNORE
    for c in range(classes):
        true, before, after = truth == c, (coarse == c) & valid, (refined == c) & valid
        kept_region, wrong_region = true & before, true ^ before
        masks = (
            kept_region,
            kept_region & after,
            wrong_region,
            wrong_region & true & after,
            wrong_region & (true | after),
        )
        counts[:, c] = np.stack([blocks.sums(mask) for mask in masks], axis=-1)
    return counts


def class_iou_imp(counts: np.ndarray, penalty: float = PENALTY) -> np.ndarray:
    """IoU_imp = IoU on M_RF - penalty (1 - IoU on M_RT) per class, of counts (..., 5), as the IDGBR release states it.

    Returns:
        (...,) float64, at most 1. Where M_RT is empty no harm can be done: IoU on M_RT is 1. Where M_RF is not empty
        but neither truth nor refined map has the class in it, every false positive is gone: IoU on M_RF is 1. Where
        M_RF is empty, nothing can be repaired: NaN if nothing was lost either, else the harm alone.
    """
    right, kept, wrong, both, either = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    harm = 1.0 - np.where(right > 0, ratio(kept, right), 1.0)
    repaired = np.where(either > 0, ratio(both, either), 1.0)
    gain = np.where(wrong > 0, repaired, np.where(harm > 0, 0.0, np.nan))
    return gain - penalty * harm


def repair_shares(counts: np.ndarray) -> dict[str, float]:
    """Shares of blocks in 0..1, of counts (blocks, 4); NaN where no block qualifies.

    Returns:
        complete (IoU_imp >= 80 %), partial (0 to 80 %), damage (< 0): of the blocks with anything repaired, repairable
        or broken; worse: blocks with fewer right pixels than in the coarse map, of the labelled blocks;
        iou_imp: of all pixels pooled.
    """
    score = iou_imp(counts)
    labelled = counts[:, 0] + counts[:, 2] > 0
    worse = (counts[:, 1] + counts[:, 3] < counts[:, 0]) & labelled
    return {
        **_shares_of(score),
        "worse": _share(worse, int(labelled.sum())),
        "iou_imp": float(iou_imp(counts.sum(0))),
    }


def class_repair_shares(counts: np.ndarray) -> dict[str, float]:
    """Shares of (block, class) pairs in 0..1 by the IDGBR release's definition, of counts (blocks, K, 5).

    Returns:
        complete (IoU_imp >= 80 %), partial (0 to 80 %), damage (< 0; "error" in the release), of the pairs with
        anything repaired, repairable or lost; iou_imp: pooled over the blocks, mean over the classes.
    """
    return {**_shares_of(class_iou_imp(counts)), "iou_imp": float(mean(class_iou_imp(counts.sum(0))))}


def _shares_of(scores: np.ndarray) -> dict[str, float]:
    known = scores[~np.isnan(scores)]
    return {
        "complete": _share(known >= COMPLETE, known.size),
        "partial": _share((known >= 0) & (known < COMPLETE), known.size),
        "damage": _share(known < 0, known.size),
    }


def _share(hits: np.ndarray, total: int) -> float:
    return float(hits.sum()) / total if total else float("nan")
