"""Regions, fragments and boundary length: how broken a map looks beside the truth."""

from __future__ import annotations

import cv2
import numpy as np

from idgbr import IGNORE
from idgbr.evaluation.blocks import Blocks
from idgbr.evaluation.region import ratio

FRAGMENT = 16
"""Default of the minimum mapping unit below which a region is a fragment, in pixels."""
_PER_MILLION = 1e6


def region_counts(
    pred: np.ndarray, truth: np.ndarray, classes: int, blocks: Blocks, fragment: int = FRAGMENT
) -> np.ndarray:
    """Regions and fragments of map and truth, per block and class.

    A region is a 4-connected set of labelled pixels of one class; a fragment is a region of fewer than `fragment`
    pixels. Pixels without a true label belong to no region of either map, so that unlabelled ground cuts both alike.
    Regions are found on the whole map and counted once, in the block of their first pixel in row-major order: sums
    over blocks are counts of the whole map, whatever the size of the blocks.

    Args:
        pred: (H, W) predicted class ids, IGNORE where there is none.
        truth: (H, W) true class ids, IGNORE where there is no label.
        classes: number of classes K.
        blocks: the blocks of (H, W).
        fragment: pixels of the smallest region that is no fragment.

    Returns:
        (blocks, K, 4) int64: regions of the map, fragments of the map, regions of the truth, fragments of the truth.
    """
    counts = np.zeros((len(blocks), classes, 4), dtype=np.int64)
    labelled = truth != IGNORE
    for c in range(classes):
        for side, mask in ((0, (pred == c) & labelled), (2, truth == c)):
            row, column, pixels = _regions(mask)
            block = blocks.number(row, column)
            counts[:, c, side] = np.bincount(block, minlength=len(blocks))
            counts[:, c, side + 1] = np.bincount(block[pixels < fragment], minlength=len(blocks))
    return counts


def _regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of the first pixel, and number of pixels, of every 4-connected region of a mask (H, W)."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    # The first pixel of a region has no neighbour of the region above it or to its left.
    corner = mask.copy()
    corner[1:] &= ~mask[:-1]
    corner[:, 1:] &= ~mask[:, :-1]
    rows, columns = np.nonzero(corner)
    numbers, first = np.unique(labels[rows, columns], return_index=True)
    return rows[first], columns[first], stats[numbers, cv2.CC_STAT_AREA]


def boundary_length_counts(pred: np.ndarray, truth: np.ndarray, classes: int, blocks: Blocks) -> np.ndarray:
    """Length of class boundaries of map and truth, per block and class.

    The length is the number of pixel edges between 4-neighbours of different classes, both with a true label and, in
    the map, both with a predicted class. An edge counts for both of its classes, so that the sum over classes is twice
    the length, in map and truth alike. Blocks count the edges whose left or upper pixel they hold; edges across the
    cuts between blocks are counted once.

    Args:
        pred: (H, W) predicted class ids, IGNORE where there is none.
        truth: (H, W) true class ids, IGNORE where there is no label.
        classes: number of classes K.
        blocks: the blocks of (H, W).

    Returns:
        (blocks, K, 2) int64: pixel edges of the map, of the truth.
    """
    counts = np.zeros((2, len(blocks) * classes), dtype=np.int64)
    for side, ids in enumerate((np.where(truth == IGNORE, np.uint8(IGNORE), pred), truth)):
        for before, after in ((ids[:-1], ids[1:]), (ids[:, :-1], ids[:, 1:])):
            row, column = np.nonzero((before != after) & (before != IGNORE) & (after != IGNORE))
            cell = blocks.number(row, column) * classes
            for ends in (before, after):
                counts[side] += np.bincount(cell + ends[row, column], minlength=counts.shape[1])
    return counts.reshape(2, len(blocks), classes).transpose(1, 2, 0)


def region_ratio(counts: np.ndarray) -> np.ndarray:
    """Regions of the map over those of the truth, (...,) of counts (..., 4); NaN where the truth has none."""
    return ratio(counts[..., 0], counts[..., 2])


def fragment_density(fragments: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Fragments per million labelled pixels; NaN where nothing is labelled."""
    return _PER_MILLION * ratio(fragments, pixels)


def length_ratio(counts: np.ndarray) -> np.ndarray:
    """Boundary length of the map over that of the truth, (...,) of counts (..., 2); NaN where the truth has none."""
    return ratio(counts[..., 0], counts[..., 1])


def fragment_mask(ids: np.ndarray, labelled: np.ndarray, fragment: int = FRAGMENT) -> np.ndarray:
    """Pixels of the fragments of a window, to draw them.

    Regions at the window's frame may go on beyond it and are left out.

    Args:
        ids: (H, W) class ids of the window.
        labelled: (H, W) bool, the pixels that count.
        fragment: pixels of the smallest region that is no fragment.

    Returns:
        (H, W) bool.
    """
    mask = np.zeros(ids.shape, dtype=bool)
    for c in np.unique(ids[labelled & (ids != IGNORE)]):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(((ids == c) & labelled).astype(np.uint8), connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] < fragment
        small[0] = False
        small[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = False
        mask |= small[labels]
    return mask
