"""Window plans for inference, and the weight of a window's pixels where windows overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from idgbr.raster.grid import Window

ANCHOR = 32
"""Windows move in steps of so many pixels: networks that halve the grid five times see the ground in one phase."""


def plan_windows(height: int, width: int, size: int, overlap: int, offset: tuple[int, int] = (0, 0)) -> list[Window]:
    """Square windows that cover every pixel of a scene, row-major.

    The windows lie on a lattice anchored to the scene with a stride of `size - overlap`, so that the plan of a
    scene does not depend on which part of it is asked for. They may stick out: reads are boundless.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        size: side of a window in pixels.
        overlap: pixels shared by neighbouring windows, less than `size`.
        offset: moves the lattice by so many (rows, columns), rounded down to multiples of `ANCHOR`.

    Returns:
        The windows. A scene no larger than a window is one window.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap {overlap} must be at least 0 and less than the window's {size}")
    rows = _starts(height, size, overlap, offset[0])
    cols = _starts(width, size, overlap, offset[1])
    return [Window(row, col, size, size) for row in rows for col in cols]


def _starts(extent: int, size: int, overlap: int, offset: int) -> list[int]:
    offset -= offset % ANCHOR
    if extent <= size:
        shift = offset % (size - extent + 1)
        return [shift % ANCHOR - shift]
    stride = size - overlap
    first = offset % stride
    first -= stride if first else 0
    count = -(-(extent - first - size) // stride) + 1
    return [first + i * stride for i in range(count)]


def rows_of(windows: Iterable[Window]) -> Iterator[tuple[Window, list[Window]]]:
    """Consecutive windows that touch or overlap along a row, with the rectangle they make up: one read for all of them.

    Args:
        windows: in the order of a plan.

    Yields:
        The rectangle and its windows; a window with no such neighbour is a row by itself. Every window comes once, in
        order.
    """
    row: list[Window] = []
    for window in windows:
        if row:
            last = row[-1]
            if (window.row, window.height) != (last.row, last.height) or not last.col < window.col <= last.stop_col:
                yield _around(row), row
                row = []
        row.append(window)
    if row:
        yield _around(row), row


def _around(row: list[Window]) -> Window:
    first, last = row[0], row[-1]
    return Window(first.row, first.col, first.height, last.stop_col - first.col)


def taper(size: int, overlap: int) -> np.ndarray:
    """Blending weight of a window's pixels.

    A raised cosine over the overlap, flat inside; the weights of neighbouring windows add up to one along each axis.

    Args:
        size: side of the window in pixels.
        overlap: width of the ramp in pixels, at most `size`.

    Returns:
        (size, size) float32, greater than 0 everywhere.
    """
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(overlap) + 0.5) / max(overlap, 1))
    side = np.ones(size)
    side[:overlap] *= ramp
    side[size - overlap :] *= ramp[::-1]
    return np.outer(side, side).astype(np.float32)
