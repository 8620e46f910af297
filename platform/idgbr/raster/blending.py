"""Blending of overlapping windows into full-width strips, in memory that the scene's width does not move."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from idgbr.errors import UserError
from idgbr.raster.grid import Window
from idgbr.raster.windows import plan_windows, taper

_STRIP_BYTES = 2 * 2**20
"""Most bytes of a strip that is handed out; wide scenes get lower strips."""
_MEMORY_BYTES = 8 * 2**20
"""Most bytes of rows in flight that stay in memory: of images, not of scenes."""


class WindowPass:
    """The windows of a scene in order: planned, blended, written as strips from top to bottom.

    Jobs, endpoint, pyfunc and notebook calls differ only in what predicts the windows and where strips are written. To
    use it: predict the planned windows, call `begin`, `add` the predictions in the order of the plan, then `finish`.
    """

    def __init__(
        self, height: int, width: int, size: int, overlap: int, offset: tuple[int, int] = (0, 0), done: int = 0
    ) -> None:
        """Plans the windows.

        Args:
            height: rows of the scene.
            width: columns of the scene.
            size: side of a window in pixels.
            overlap: pixels shared by neighbouring windows.
            offset: moves the windows' lattice, see `plan_windows`.
            done: rows that are there already; windows that end above them are left out.
        """
        self.height, self.width, self.size, self.overlap, self.done = height, width, size, overlap, done
        plan = plan_windows(height, width, size, overlap, offset)
        self.planned = len(plan)
        self.windows = tuple(window for window in plan if window.stop_row > done)

    def chunks(self, count: int) -> list[NDArray[np.int64]]:
        """The windows' first rows and columns (n, 2), at most `count` at a time."""
        corners = np.array([(window.row, window.col) for window in self.windows], np.int64)
        return np.array_split(corners, -(-len(corners) // count))

    def begin(self, channels: int, write: Callable[[int, NDArray[np.float32]], None]) -> None:
        """Starts to blend.

        Args:
            channels: channels of the windows' values.
            write: is called with the first row and the values (channels, rows, width) of each finished strip.
        """
        self._write, self._next = write, 0
        self._blender = StripBlender(
            self.height, self.width, channels, self.windows, self.size, self.overlap, self.done
        )

    def add(self, values: NDArray, trust: float = 1.0) -> None:
        """Adds the values (channels, H, W) of the next window, see `StripBlender.add`."""
        window = self.windows[self._next]
        self._next += 1
        for row, strip in self._blender.add(window, values, trust):
            self._write(row, strip)

    def finish(self) -> None:
        """Writes what is left, once the last window was added."""
        for row, strip in self._blender.finish():
            self._write(row, strip)


class StripBlender:
    """Weighted mean of overlapping windows, handed out from top to bottom as soon as no later window reaches it.

    The weighted sums of the rows in flight are rows of a ring. Those of a scene lie in an unnamed temporary file, so
    that neither its width nor its height decides how much memory is used; a window costs one read and one write of
    each of its rows. Those of an image of a few hundred pixels stay in memory.
    """

    def __init__(
        self, height: int, width: int, channels: int, windows: Sequence[Window], size: int, overlap: int, first: int = 0
    ) -> None:
        """Prepares to blend a plan.

        Args:
            height: rows of the scene.
            width: columns of the scene.
            channels: channels of the values.
            windows: the plan, row-major, of square windows of `size`.
            size: side of a window.
            overlap: pixels shared by neighbours, the width of the blending ramp.
            first: row to begin at, for a plan without the windows that end above it.
        """
        self.height, self.width, self.channels, self.size = height, width, channels, size
        self._windows = list(windows)
        self._weight = taper(size, overlap)[..., None]
        self._next = 0
        self._done = first
        self._remaining = Window(first, 0, height - first, width)
        self._row_bytes = width * (channels + 1) * 4
        # Closed by finish, or with the object.
        small = size * self._row_bytes <= _MEMORY_BYTES
        self._rows: _Rows = (_MemoryRows if small else _FileRows)(size, width, channels + 1)

    def add(self, window: Window, values: np.ndarray, trust: float = 1.0) -> Iterator[tuple[int, np.ndarray]]:
        """Adds the values of the plan's next window.

        Args:
            window: the next window of the plan.
            values: (C, H, W) float; what sticks out of the scene is left out.
            trust: scales the window's weight; of one that knows nothing it should hardly be more than 0.

        Yields:
            First row and (C, rows, width) float32 of strips that no later window touches. The generator must be
            exhausted before the next call.
        """
        if self._next >= len(self._windows) or window != self._windows[self._next]:
            raise ValueError(f"windows must be added in the order of the plan; {window} is not the next")
        self._next += 1
        yield from self._emit(min(max(window.row, 0), self.height))
        inside = window.intersect(self._remaining)
        if inside is None:
            return
        part = inside.slices((window.row, window.col))
        weight = self._weight[part] * np.float32(trust)
        weighted = np.concatenate([values[:, *part].transpose(1, 2, 0) * weight, weight], axis=2, dtype=np.float32)
        for i in range(inside.height):
            self._rows.add((inside.row + i) % self.size, inside.col, weighted[i])

    def finish(self) -> Iterator[tuple[int, np.ndarray]]:
        """Hands out what is left, once the last window was added."""
        if self._next != len(self._windows):
            raise ValueError(f"{len(self._windows) - self._next} windows of the plan were not added")
        yield from self._emit(self.height)
        self._rows.close()

    def _emit(self, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        max_rows = max(1, _STRIP_BYTES // self._row_bytes)
        while self._done < stop:
            rows = min(max_rows, stop - self._done)
            sums = np.stack([self._rows.take((self._done + i) % self.size) for i in range(rows)])
            weight = sums[..., -1:]
            if not (weight > 0).all():
                raise ValueError(f"the plan leaves pixels of rows {self._done} to {self._done + rows} uncovered")
            row, self._done = self._done, self._done + rows
            yield row, (sums[..., :-1] / weight).transpose(2, 0, 1)


class _Rows(Protocol):
    """Rows of sums, all zero at first."""

    def __init__(self, rows: int, width: int, channels: int) -> None: ...

    def add(self, row: int, col: int, values: NDArray[np.float32]) -> None:
        """Adds (W, C) to a part of a row."""

    def take(self, row: int) -> NDArray[np.float32]:
        """A row (width, C), which is zero from now on."""

    def close(self) -> None:
        """Lets go of the rows."""


class _MemoryRows:
    def __init__(self, rows: int, width: int, channels: int) -> None:
        self._sums = np.zeros((rows, width, channels), np.float32)

    def add(self, row: int, col: int, values: NDArray[np.float32]) -> None:
        self._sums[row, col : col + len(values)] += values

    def take(self, row: int) -> NDArray[np.float32]:
        sums: NDArray[np.float32] = self._sums[row].copy()
        self._sums[row] = 0
        return sums

    def close(self) -> None:
        del self._sums


class _FileRows:
    def __init__(self, rows: int, width: int, channels: int) -> None:
        self._shape = rows, width, channels
        self._file = tempfile.TemporaryFile(prefix="idgbr-blend-")  # noqa: SIM115, closed by close or with the object
        self._file.truncate(rows * width * channels * 4)

    def add(self, row: int, col: int, values: NDArray[np.float32]) -> None:
        start = self._start(row, col)
        self._write(start, (self._read(start, len(values)) + values).tobytes())

    def take(self, row: int) -> NDArray[np.float32]:
        _, width, channels = self._shape
        start = self._start(row, 0)
        sums = self._read(start, width)
        self._write(start, bytes(width * channels * 4))
        return sums

    def close(self) -> None:
        self._file.close()

    def _start(self, row: int, col: int) -> int:
        _, width, channels = self._shape
        return (row * width + col) * channels * 4

    def _read(self, start: int, pixels: int) -> NDArray[np.float32]:
        channels = self._shape[2]
        data = os.pread(self._file.fileno(), pixels * channels * 4, start)
        return np.frombuffer(data, dtype=np.float32).reshape(pixels, channels)

    def _write(self, start: int, data: bytes) -> None:
        try:
            os.pwrite(self._file.fileno(), data, start)
        except OSError as error:
            rows, width, channels = self._shape
            raise UserError(
                f"{tempfile.gettempdir()}: cannot hold the {rows * width * channels * 4 / 2**20:.0f} MB of "
                f"rows being blended ({error.strerror}). Free some space, or set TMPDIR to another disk."
            ) from error
