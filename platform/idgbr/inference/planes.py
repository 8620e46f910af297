"""A coarse map between the stages: class ids and quantised probabilities, the same on disk, in a job and in Serve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from idgbr import IGNORE

_SCALE = 255
"""uint8 value of probability 1."""


def to_planes(probabilities: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Class ids, then each class's probability times 255.

    Args:
        probabilities: (K, H, W) in 0..1.
        valid: (H, W); elsewhere the id is IGNORE and every probability 0.

    Returns:
        (1 + K, H, W).
    """
    ids = np.where(valid, probabilities.argmax(0), IGNORE)[None].astype(np.uint8)
    scaled = np.where(valid, np.rint(probabilities.clip(0, 1) * _SCALE), 0).astype(np.uint8)
    return np.concatenate([ids, scaled])


def given_coarse(planes: NDArray[np.uint8], wanted: str) -> NDArray:
    """What stage 2 is given of windows of planes.

    Args:
        planes: (N, 1 + K, H, W) as `to_planes` makes them, or (N, 1, H, W) class ids of somebody else's.
        wanted: The refiner's `coarse_input`, ids or probabilities.

    Returns:
        (N, H, W) class ids, or (N, K, H, W) float32 probabilities.
    """
    if wanted == "ids" or planes.shape[1] == 1:
        return planes[:, 0]
    return planes[:, 1:].astype(np.float32) / _SCALE


def cut_windows(planes: NDArray, corners: NDArray, size: int, fill: int = 0) -> NDArray:
    """Square windows of planes in memory; what sticks out is filled.

    Args:
        planes: (C, H, W).
        corners: (N, 2) row and column of each window's first pixel.
        size: Side of a window.
        fill: Value outside of the planes.

    Returns:
        (N, C, size, size) in the planes' dtype, a copy.
    """
    height, width = planes.shape[-2:]
    cut = np.full((len(corners), len(planes), size, size), fill, planes.dtype)
    for window, (row, col) in zip(cut, corners, strict=True):
        top, left, bottom, right = max(row, 0), max(col, 0), min(row + size, height), min(col + size, width)
        if top < bottom and left < right:
            window[:, top - row : bottom - row, left - col : right - col] = planes[:, top:bottom, left:right]
    return cut
