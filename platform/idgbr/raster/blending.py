"""Blending of overlapping windows into full-width strips, in memory that the scene's width does not move."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from idgbr.errors import UserError
from idgbr.raster.grid import Window
from idgbr.raster.windows import taper

_STRIP_BYTES = 2 * 2**20
"""Most bytes of a strip that is handed out; wide scenes get lower strips."""


class StripBlender:
    """Weighted mean of overlapping windows, handed out from top to bottom as soon as no later window reaches it.

    The weighted sums of the rows in flight lie in an unnamed temporary file, rows of a ring, so that neither the
    width nor the height of the scene decides how much memory is used; a window costs one read and one write of each
    of its rows.
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
        self._wanted = Window(first, 0, height - first, width)
        self._file = tempfile.TemporaryFile(prefix="idgbr-blend-")  # noqa: SIM115, closed by finish or with the object
        self._pixel = (channels + 1) * 4
        self._file.truncate(size * width * self._pixel)

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
        inside = window.intersect(self._wanted)
        if inside is None:
            return
        part = inside.slices((window.row, window.col))
        weight = self._weight[part] * np.float32(trust)
        weighted = np.concatenate([values[:, *part].transpose(1, 2, 0) * weight, weight], axis=2, dtype=np.float32)
        for i in range(inside.height):
            start = self._offset(inside.row + i, inside.col)
            sums = np.frombuffer(self._read(start, inside.width), dtype=np.float32).reshape(inside.width, -1)
            self._write(start, (sums + weighted[i]).tobytes())

    def finish(self) -> Iterator[tuple[int, np.ndarray]]:
        """Hands out what is left, once the last window was added."""
        if self._next != len(self._windows):
            raise ValueError(f"{len(self._windows) - self._next} windows of the plan were not added")
        yield from self._emit(self.height)
        self._file.close()

    def _emit(self, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        most = max(1, _STRIP_BYTES // (self.width * self._pixel))
        while self._done < stop:
            rows = min(most, stop - self._done)
            sums = np.empty((rows, self.width, self.channels + 1), dtype=np.float32)
            for i in range(rows):
                start = self._offset(self._done + i, 0)
                sums[i] = np.frombuffer(self._read(start, self.width), dtype=np.float32).reshape(self.width, -1)
                self._write(start, bytes(self.width * self._pixel))
            weight = sums[..., -1:]
            if not (weight > 0).all():
                raise ValueError(f"the plan leaves pixels of rows {self._done} to {self._done + rows} uncovered")
            row, self._done = self._done, self._done + rows
            yield row, (sums[..., :-1] / weight).transpose(2, 0, 1)

    def _offset(self, row: int, col: int) -> int:
        return ((row % self.size) * self.width + col) * self._pixel

    def _read(self, start: int, pixels: int) -> bytes:
        return os.pread(self._file.fileno(), pixels * self._pixel, start)

    def _write(self, start: int, data: bytes) -> None:
        try:
            os.pwrite(self._file.fileno(), data, start)
        except OSError as error:
            raise UserError(
                f"{tempfile.gettempdir()}: cannot hold the {self.size * self.width * self._pixel / 2**20:.0f} MB of "
                f"rows being blended ({error.strerror}). Free some space, or set TMPDIR to another disk."
            ) from error
