"""Region metrics from a confusion matrix: IoU, F1, accuracy, kappa."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from idgbr import IGNORE


def confusion(pred: np.ndarray, truth: np.ndarray, classes: int, *, unanswered: bool = False) -> np.ndarray:
    """Counts of (true class, predicted class); every labelled pixel once, ignored ones never.

    Args:
        pred: (H, W) predicted class ids.
        truth: (H, W) true class ids, IGNORE where there is no label.
        classes: number of classes K.
        unanswered: give the matrix one more column, for labelled pixels the prediction leaves at IGNORE.

    Returns:
        (K, K) int64, or (K, K + 1) with `unanswered`; rows are the truth.

    Raises:
        ValueError: the shapes differ, or an id is not a class.
    """
    block = np.zeros(truth.shape, dtype=np.int32)
    counts: np.ndarray = block_confusion(pred, truth, classes, block, 1)[0]
    if unanswered:
        return counts
    if counts[:, classes].any():
        raise ValueError(f"{counts[:, classes].sum()} labelled pixels have no predicted class")
    answered: np.ndarray = counts[:, :classes]
    return answered


def block_confusion(pred: np.ndarray, truth: np.ndarray, classes: int, block: np.ndarray, blocks: int) -> np.ndarray:
    """Confusion counts per block, (blocks, K, K + 1) int64; the last column counts labelled pixels without an answer.

    Args:
        pred: (H, W) predicted class ids, IGNORE where there is none.
        truth: (H, W) true class ids, IGNORE where there is no label.
        classes: number of classes K.
        block: (H, W) int, the block of each pixel.
        blocks: number of blocks.

    Raises:
        ValueError: the shapes differ, or an id is not a class.
    """
    if pred.shape != truth.shape:
        raise ValueError(f"prediction is {pred.shape}, truth is {truth.shape}")
    valid = truth != IGNORE
    true, predicted = truth[valid].astype(np.int64), pred[valid].astype(np.int64)
    predicted[predicted == IGNORE] = classes
    for name, ids, largest in (("truth", true, classes - 1), ("prediction", predicted, classes)):
        if ids.size and (ids.max() > largest or ids.min() < 0):
            raise ValueError(f"{name} holds id {ids.max()}, there are {classes} classes")
    flat = (block[valid] * np.int64(classes) + true) * (classes + 1) + predicted
    return np.bincount(flat, minlength=blocks * classes * (classes + 1)).reshape(blocks, classes, classes + 1)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide: part / whole as float64, NaN where whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    out = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean over the entries that are not NaN along `axis`; NaN (without a warning) where there is none."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis), known.sum(axis))


def iou_per_class(counts: np.ndarray) -> np.ndarray:
    """Intersection over union, (..., K) float64 of counts (..., K, K or K + 1); NaN for classes nobody has."""
    true = counts.sum(-1)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    predicted = counts[..., : counts.shape[-2]].sum(-2)
    return ratio(right, true + predicted - right)


def f1_per_class(counts: np.ndarray) -> np.ndarray:
    """F1, (..., K) float64 of counts (..., K, K or K + 1); NaN for classes nobody has."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    return ratio(2 * right, counts.sum(-1) + counts[..., : counts.shape[-2]].sum(-2))


@dataclass(frozen=True)
class RegionScores:
    """Figures of one confusion matrix, each in 0..1 (kappa in -1..1); NaN where nothing was labelled.

    `iou` and `f1` are (K,), NaN for a class absent from truth and prediction, which the means leave out.
    """

    iou: np.ndarray
    f1: np.ndarray
    miou: float
    mean_f1: float
    accuracy: float
    kappa: float
    fwiou: float

    @classmethod
    def from_confusion(cls, counts: np.ndarray) -> RegionScores:
        """Scores of counts (K, K), rows the truth, or (K, K + 1) with a last column of unanswered pixels."""
        total = float(counts.sum())
        true = counts.sum(1)
        right = np.diagonal(counts)
        predicted = counts[:, : counts.shape[0]].sum(0)
        iou = iou_per_class(counts)
        f1 = f1_per_class(counts)
        accuracy = float(ratio(right.sum(), np.asarray(total)))
        if total:
            chance = float((true / total * (predicted / total)).sum())
            kappa = (accuracy - chance) / (1 - chance) if chance < 1 else accuracy
            fwiou = float((true / total * np.nan_to_num(iou)).sum())
        else:
            kappa = fwiou = float("nan")
        return cls(iou, f1, float(mean(iou)), float(mean(f1)), accuracy, kappa, fwiou)
