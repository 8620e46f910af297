"""Maps as uint8 planes: class ids, quantised probabilities, uncertainty; the same on disk, in a job and in Serve."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from idgbr import IGNORE

PROBABILITY_SCALE = 255
"""uint8 value of probability 1 between the stages, where nodata is a class id of IGNORE."""
BAND_SCALE = 254
"""uint8 value of 1.0 in bands of probability and uncertainty, whose nodata is 255."""


def to_planes(probabilities: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Class ids, then each class's probability times 255.

    Args:
        probabilities: (K, H, W) in 0..1.
        valid: (H, W); elsewhere the id is IGNORE and every probability 0.

    Returns:
        (1 + K, H, W).
    """
    ids = np.where(valid, probabilities.argmax(0), IGNORE)[None].astype(np.uint8)
    scaled = np.where(valid, quantised(probabilities), 0).astype(np.uint8)
    return np.concatenate([ids, scaled])


def to_refined_planes(probabilities: NDArray, uncertainty: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """`to_planes`, then the uncertainty (H, W) as `to_band` makes it: (2 + K, H, W)."""
    return np.concatenate([to_planes(probabilities, valid), to_band(uncertainty, valid)[None]])


def to_band(values: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Values (H, W) of 0..1 as 0..254, and 255 where not valid."""
    return np.where(valid, np.rint(values.clip(0, 1) * BAND_SCALE), IGNORE).astype(np.uint8)


def quantised(probabilities: NDArray) -> NDArray[np.uint8]:
    """Probabilities of 0..1 as 0..255."""
    return np.rint(probabilities.clip(0, 1) * PROBABILITY_SCALE).astype(np.uint8)


def as_probabilities(planes: NDArray) -> NDArray[np.float32]:
    """What `quantised` was made of."""
    return planes.astype(np.float32) / np.float32(PROBABILITY_SCALE)


def coarse_input(planes: NDArray[np.uint8], kind: str) -> NDArray:
    """The coarse map as stage 2 reads it.

    Args:
        planes: (N, 1 + K, H, W) as `to_planes` makes them, or (N, 1, H, W) class ids of another model.
        kind: The refiner's `coarse_input`, ids or probabilities.

    Returns:
        (N, H, W) class ids, or (N, K, H, W) float32 probabilities.
    """
    if kind == "ids" or planes.shape[1] == 1:
        return planes[:, 0]
    return as_probabilities(planes[:, 1:])


def predict_valid(
    valid: NDArray[np.bool_], channels: int, predict: Callable[[NDArray[np.intp]], NDArray]
) -> NDArray[np.float16]:
    """Predictions of the windows that hold a valid pixel; the others are 0 and cost nothing.

    Args:
        valid: (N, H, W).
        channels: Channels of a prediction.
        predict: Predicts the windows of these numbers: (n, channels, H, W).

    Returns:
        (N, channels, H, W).
    """
    values = np.zeros((len(valid), channels, *valid.shape[1:]), np.float16)
    numbers = np.flatnonzero(valid.any(axis=(1, 2)))
    if numbers.size:
        values[numbers] = predict(numbers)
    return values


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
