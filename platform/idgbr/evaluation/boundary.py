"""Boundary metrics: boundary IoU, boundary F1 and the weighted F-measure of edge maps."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from idgbr import IGNORE
from idgbr.evaluation.blocks import Blocks

WIDTH = 3
"""Width d of the band of boundary IoU, in pixels."""
TOLERANCE = 2
"""Distance within which boundary F1 takes two boundary pixels as the same, in pixels."""
KERNELS = (3, 5, 7)
"""Sides k of the squares that dilate the edge maps of WFm(k), in pixels."""
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def inner_band(region: np.ndarray, width: int = WIDTH) -> np.ndarray:
    """Pixels of a region within `width` 4-neighbour steps of its outside, (H, W) bool.

    What lies beyond the array counts as outside.
    """
    inside = region.astype(np.uint8)
    core = cv2.erode(inside, _CROSS, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return (inside > core).astype(bool)


def boundary_iou_counts(pred: np.ndarray, truth: np.ndarray, classes: int, blocks: Blocks) -> np.ndarray:
    """Intersections and unions of boundary IoU (Cheng et al. 2021), per block and class.

    Ignored pixels leave both regions first. The bands are made on the whole map and only then counted by block, so
    that a cut between blocks is no boundary.

    Args:
        pred: (H, W) predicted class ids.
        truth: (H, W) true class ids, IGNORE where there is no label.
        classes: number of classes K.
        blocks: the blocks of (H, W).

    Returns:
        (blocks, K, 2) int64: intersection, union.
    """
    counts = np.zeros((len(blocks), classes, 2), dtype=np.int64)
    valid = truth != IGNORE
    for c in range(classes):
        ours, theirs = (pred == c) & valid, truth == c
        if ours.any() or theirs.any():
            ours, theirs = inner_band(ours), inner_band(theirs)
            counts[:, c, 0] = blocks.sums(ours & theirs)
            counts[:, c, 1] = blocks.sums(ours | theirs)
    return counts


def boundary_f1_counts(
    pred: np.ndarray, truth: np.ndarray, classes: int, blocks: Blocks, tolerance: int = TOLERANCE
) -> np.ndarray:
    """Matches of boundary pixels within a tolerance, per block and class.

    A boundary pixel of a class has a labelled 4-neighbour of another class; the map's frame and the border of ignored
    ground are no boundary. It matches if a boundary pixel of the same class in the other map lies within `tolerance`
    (Euclidean, pixels).

    Returns:
        (blocks, K, 4) int64: predicted boundary pixels that match, predicted, true that match, true.
    """
    counts = np.zeros((len(blocks), classes, 4), dtype=np.int64)
    valid = truth != IGNORE
    reach = np.hypot(*np.mgrid[-tolerance : tolerance + 1, -tolerance : tolerance + 1])
    disc = (reach <= tolerance).astype(np.uint8)
    for c in range(classes):
        rims = [_rim((labels == c) & valid, valid) for labels in (pred, truth)]
        near = [cv2.dilate(rim, disc) for rim in rims]
        for i in (0, 1):
            counts[:, c, 2 * i] = blocks.sums((rims[i] & near[1 - i]).astype(bool))
            counts[:, c, 2 * i + 1] = blocks.sums(rims[i].astype(bool))
    return counts


def _rim(region: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return (region & (cv2.dilate((valid & ~region).astype(np.uint8), _CROSS) > 0)).astype(np.uint8)


def edge_map(labels: np.ndarray, kernel: int) -> np.ndarray:
    """Edge map of WFm: 3x3 Sobel gradient of the class ids > 0, dilated by a kernel x kernel square; (H, W) bool."""
    ids = labels.astype(np.int16)
    across, down = (cv2.Sobel(ids, cv2.CV_16S, dx, 1 - dx, ksize=3) for dx in (1, 0))
    gradient = ((across != 0) | (down != 0)).astype(np.uint8)
    return cv2.dilate(gradient, np.ones((kernel, kernel), np.uint8)).astype(bool)


def fill_ignored(labels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Give pixels outside `valid` the nearest valid label, so that the border of ignored ground is no edge."""
    if valid.all() or not valid.any():
        return labels
    nearest = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    filled: np.ndarray = labels[tuple(nearest)]
    return filled


def weighted_f(pred: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Weighted F-measure of a binary map (Margolin et al., CVPR 2014), beta 1.

    Errors on true pixels are averaged with their neighbours' (Gaussian of sigma 5 px cut to 7 x 7, zero beyond the
    array) and forgiven where that lowers them; false alarms weigh 2 - 0.5^(d/5), d px away from the nearest true pixel.

    Args:
        pred: (H, W) bool.
        truth: (H, W) bool.
        valid: (H, W) bool; other pixels count neither as true nor as error.

    Returns:
        Score in 0..1; NaN where no valid pixel is true.
    """
    counted = np.ones(truth.shape, dtype=bool) if valid is None else valid
    ours, theirs = truth & counted, ~truth & counted
    positives = int(ours.sum())
    if positives == 0:
        return float("nan")
    error = ((pred != truth) & counted).astype(np.float64)
    if not error.any():
        return 1.0
    distance, nearest = ndimage.distance_transform_edt(~truth, return_indices=True)
    smooth = ndimage.gaussian_filter(error[tuple(nearest)], 5.0, radius=3, mode="constant")
    missed = float(np.minimum(error, smooth)[ours].sum())
    alarms = float((error * (2.0 - 0.5 ** (distance / 5.0)))[theirs].sum())
    recall = 1.0 - missed / positives
    precision = (positives - missed) / (positives - missed + alarms) if positives > missed else 0.0
    return 2.0 * recall * precision / (recall + precision) if recall + precision > 0 else 0.0


def wfm(pred: np.ndarray, truth: np.ndarray, images: Blocks) -> np.ndarray:
    """WFm(k) of the edge and the non-edge class, for every image a region is cut into.

    Edge maps are made on the whole region, so that cuts are no edges. Pixels without a true label take, in either map,
    that map's nearest labelled class, and are not counted.

    Args:
        pred: (H, W) predicted class ids.
        truth: (H, W) true class ids, IGNORE where there is no label.
        images: the pieces that count as one image each.

    Returns:
        (images, 3, 2) float64: k = 3, 5, 7; edge, non-edge. NaN for the edge class of an image without true edges.
    """
    scores = np.full((len(images), len(KERNELS), 2), np.nan)
    valid = truth != IGNORE
    if not valid.any():
        return scores
    ours, theirs = fill_ignored(pred, valid), fill_ignored(truth, valid)
    for i, kernel in enumerate(KERNELS):
        predicted, true = edge_map(ours, kernel), edge_map(theirs, kernel)
        for n, piece in enumerate(images.slices()):
            scores[n, i, 0] = weighted_f(predicted[piece], true[piece], valid[piece])
            scores[n, i, 1] = weighted_f(~predicted[piece], ~true[piece], valid[piece])
    return scores
