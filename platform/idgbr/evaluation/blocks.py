"""Cutting a region into blocks: the unit of the repair figures, of the bootstrap and of the WFm images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def cuts(length: int, size: int) -> list[int]:
    """Borders of the blocks along one axis.

    Cuts lie at multiples of `size`; a remainder narrower than half a block joins the last one, since a sliver
    counted as a whole block would weigh its few pixels like a block's.

    Args:
        length: pixels along the axis, at least 1.
        size: side of a block in pixels.

    Returns:
        Ascending borders, first 0, last `length`.
    """
    borders = [*range(0, length, size), length]
    if len(borders) > 2 and 2 * (borders[-1] - borders[-2]) < size:
        del borders[-2]
    return borders


@dataclass(frozen=True)
class Blocks:
    """The blocks of one region of (height, width) pixels, numbered row-major."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, int], size: int) -> Blocks:
        """Blocks of about `size` x `size` pixels that cover `shape` (H, W) exactly once."""
        return cls(tuple(cuts(shape[0], size)), tuple(cuts(shape[1], size)))

    def __len__(self) -> int:
        return (len(self.rows) - 1) * (len(self.columns) - 1)

    def windows(self) -> np.ndarray:
        """(blocks, 4) int64: row, col, height, width of every block."""
        return np.array(
            [
                (top, left, bottom - top, right - left)
                for top, bottom in zip(self.rows, self.rows[1:], strict=False)
                for left, right in zip(self.columns, self.columns[1:], strict=False)
            ],
            dtype=np.int64,
        )

    def slices(self) -> list[tuple[slice, slice]]:
        """Row and column slice of every block."""
        return [(slice(r, r + h), slice(c, c + w)) for r, c, h, w in self.windows().tolist()]

    def index(self) -> np.ndarray:
        """(H, W) int32: the number of the block each pixel lies in."""
        row = np.repeat(np.arange(len(self.rows) - 1), np.diff(self.rows))
        column = np.repeat(np.arange(len(self.columns) - 1), np.diff(self.columns))
        return (row[:, None] * (len(self.columns) - 1) + column[None, :]).astype(np.int32)

    def number(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """(n,) int64: the numbers of the blocks that hold pixels at `row` and `column` (n,)."""
        across = len(self.columns) - 1
        down = np.searchsorted(self.rows, row, side="right") - 1
        return np.asarray(down * across + np.searchsorted(self.columns, column, side="right") - 1, dtype=np.int64)

    def sums(self, mask: np.ndarray) -> np.ndarray:
        """(blocks,) int64: pixels set in `mask` (H, W) bool, per block."""
        by_row = np.add.reduceat(mask, self.rows[:-1], axis=0, dtype=np.int64)
        return np.add.reduceat(by_row, self.columns[:-1], axis=1).ravel()
