"""A scene: the address of a raster, or of a rectangle of it, and how to read windows of it anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from idgbr.errors import UserError
from idgbr.raster.bands import shown_colours
from idgbr.raster.gdal import absolute, cached_dataset, gdal_env, version_of
from idgbr.raster.grid import Grid, Window
from idgbr.raster.opening import PLAIN, Reading
from idgbr.raster.source import Source
from idgbr.raster.values import BandMaps

_PROBE = 64
_SCAN = 2**30
"""Pixels of the largest scene that is searched for a valid one: a minute or so."""
_BIG = 8 * 2**20
"""Bytes from which an untiled file is worth a tiled copy: a 13 MB PNG takes 130 ms a window, its tiled copy 5."""


@dataclass(frozen=True)
class SceneProfile:
    """What a scene's file is like.

    Attributes:
        driver: GDAL's name of the format.
        dtype: dtype of the bands that are read.
        bands: names of all bands of the file, in order.
        selected: 1-based indices of the bands that are read.
        height: rows of the file.
        width: columns of the file.
        block: rows and columns of a block, the least that a read decodes.
        nodata: value of pixels without data, None when there is none.
        gsd: ground sample distance of the file in metres, None when unknown.
        overviews: their factors.
    """

    driver: str
    dtype: str
    bands: tuple[str, ...]
    selected: tuple[int, ...]
    height: int
    width: int
    block: tuple[int, int]
    nodata: float | None
    gsd: float | None
    overviews: tuple[int, ...]

    @property
    def tiled(self) -> bool:
        """Whether a window can be read without decoding whole rows of the file."""
        return self.block[1] < self.width or self.height * self.width <= self.block[0] * self.block[1]

    @property
    def bytes(self) -> int:
        """Size of the pixels of all bands, decoded."""
        return self.height * self.width * len(self.bands) * np.dtype(self.dtype).itemsize

    @property
    def slow(self) -> bool:
        """Whether windows are slow to read: a big file without tiles, which deserves a warning or a tiled copy."""
        return not self.tiled and self.bytes > _BIG


@dataclass(frozen=True)
class Scene:
    """A raster, or a rectangle of one, that can be read by windows in any process.

    Nothing but the address is held, so a scene can be pickled, hashed and compared; files are opened on demand and a
    few are kept open per thread.

    Attributes:
        uri: local path, s3:// or gs://, or a path of a GDAL virtual file system.
        bands: 1-based indices or band names, in output order; empty for all but alpha.
        nodata: overrides the file's nodata value.
        window: the rectangle, in pixels of the (resampled) file; None for all of it.
        gsd: ground sample distance in metres, overrides the file's.
        resample_to: ground sample distance to read at; None reads the file's own pixels.
        nearest: resample class ids, which must not be averaged.
        reading: how doubts about the file are settled.
        maps: what is done to pixel values, which become float32; None leaves them as they are.
    """

    uri: str
    bands: tuple[int | str, ...] = ()
    nodata: float | None = None
    window: Window | None = None
    gsd: float | None = None
    resample_to: float | None = None
    nearest: bool = False
    reading: Reading = PLAIN
    maps: BandMaps | None = None

    def __post_init__(self) -> None:
        # Workers have working directories of their own.
        object.__setattr__(self, "uri", absolute(self.uri))

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column of the scene's first pixel in its (resampled) file: what ground-anchored noise counts from."""
        return (self.window.row, self.window.col) if self.window else (0, 0)

    def crop(self, window: Window) -> Scene:
        """The scene of a window of this one; it may stick out."""
        return replace(self, window=window.shift(*self.origin))

    def whole(self) -> Scene:
        """The scene of all of the file, at its own resolution."""
        return replace(self, window=None, resample_to=None)

    def grid(self) -> Grid:
        """Size and georeference of the rectangle, after resampling."""
        with gdal_env(self.uri):
            grid = self.source().grid
        return grid.crop(self.window) if self.window else grid

    def resolution(self) -> float | None:
        """Ground sample distance in metres of what `read` returns; None when neither file nor caller knows."""
        if self.resample_to is not None:
            return self.resample_to
        return self.gsd if self.gsd is not None else self.grid().gsd

    def colours(self) -> tuple[str, ...]:
        """What the bands that are read show by their tags; empty where one of them says nothing."""
        with gdal_env(self.uri):
            return shown_colours(self.source(), self.bands)

    def profile(self) -> SceneProfile:
        """What the file is like; no pixels are read."""
        with gdal_env(self.uri):
            source = self.source()
            selected, file = source.indexes(self.bands), source.file
            return SceneProfile(
                driver=file.driver,
                dtype="float32" if self.maps else source.dtype(selected).name,
                bands=tuple(source.band_names()),
                selected=tuple(selected),
                height=file.height,
                width=file.width,
                block=tuple(file.block_shapes[0]),
                nodata=source.nodata,
                gsd=self.gsd if self.gsd is not None else source.native.gsd,
                overviews=tuple(file.overviews(1)),
            )

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of a window, which may stick out of the scene.

        Args:
            window: in pixels of this scene, (0, 0) being its upper left.

        Returns:
            Pixels (B, H, W) in the file's dtype and their validity (H, W) bool. Pixels outside of the scene are 0 and
            invalid, as are NaN and infinity; nodata pixels keep their value and are invalid. Validity is shared between
            windows that are valid throughout, and not to be written to.

        Raises:
            UserError: the file is missing, unreadable or damaged, or has no such band.
        """
        return self.read_each([window])[0]

    def read_each(self, windows: Sequence[Window]) -> list[tuple[np.ndarray, np.ndarray]]:
        """`read` of several windows, in less time than one by one."""
        with gdal_env(self.uri):
            source = self.source()
            indexes = source.indexes(self.bands)
            read = [self._read(source, indexes, window) for window in windows]
        return [(self.maps.apply(pixels), valid) for pixels, valid in read] if self.maps else read

    def _read(self, source: Source, indexes: list[int], window: Window) -> tuple[np.ndarray, np.ndarray]:
        if self.window is None and window.within(source.grid.height, source.grid.width):
            return source.read(window, indexes)  # nearly always
        rectangle = self.window or source.grid.window
        requested = window.shift(rectangle.row, rectangle.col)
        inside = requested.intersect(rectangle)
        inside = inside and inside.intersect(source.grid.window)
        if inside == requested:
            return source.read(requested, indexes)
        pixels = np.zeros((len(indexes), window.height, window.width), dtype=source.dtype(indexes))
        valid = np.zeros((window.height, window.width), dtype=bool)
        if inside is not None:
            rows, cols = inside.slices((requested.row, requested.col))
            pixels[:, rows, cols], valid[rows, cols] = source.read(inside, indexes)
        return pixels, valid

    def unread(self, window: Window) -> str:
        """Which missing part of a virtual raster fills some pixel of a window; empty where all parts are there."""
        with gdal_env(self.uri):
            source = self.source()
            if not source.parts.layers:
                return ""
            area = window.shift(*self.origin)
            area = (area.intersect(self.window) if self.window else area) or Window(0, 0, 0, 0)
            indexes = source.indexes(self.bands)
            if not source.unread(area, indexes).any():
                return ""
            gone = source.missing(area, indexes)
            return f"{self.uri}: {', '.join(gone[:3])} cannot be opened, which it is made of."

    def check(self) -> None:
        """Opens the scene and reads a little of it, so that bad input is refused before any work starts.

        Corners, edges and centre are read, the places where a cut-off file ends among them. Where none of these holds
        a valid pixel the rest is read, as far as `_SCAN` goes: what is larger gets the benefit of the doubt.

        Raises:
            UserError: missing, not a raster, truncated, no such band, or not one valid pixel.
        """
        grid = self.grid()
        height, width = min(_PROBE, grid.height), min(_PROBE, grid.width)
        rows = sorted({0, (grid.height - height) // 2, grid.height - height})
        cols = sorted({0, (grid.width - width) // 2, grid.width - width})
        probes = [self.read(Window(row, col, height, width))[1].any() for row in rows for col in cols]
        if any(probes) or grid.height * grid.width > _SCAN:
            return
        if any(self.read(tile)[1].any() for tile in grid.window.tiles(1024)):
            return
        nodata = self.profile().nodata
        raise UserError(
            f"{self.uri}: not one valid pixel in {grid.height} x {grid.width} px; all are nodata ({nodata}), masked, "
            "transparent or not finite. Expected imagery; remove the file, or set data.nodata or data.alpha "
            "(--nodata, --alpha for a map) if these are wrong."
        )

    def source(self) -> Source:
        """The open file; call it inside of `gdal_env`, and keep it to this thread."""
        key = (self.uri, self.nodata, self.gsd, self.resample_to, self.nearest, self.reading, version_of(self.uri))
        return cached_dataset(key, self._open)

    def _open(self) -> Source:
        if self.resample_to is None:
            return Source(self.uri, self.nodata, None, self.nearest, reading=self.reading)
        plain = Source(self.uri, self.nodata, None, self.nearest, reading=self.reading)
        gsd = self.gsd if self.gsd is not None else plain.native.gsd
        plain.close()
        if gsd is None:
            raise UserError(
                f"{self.uri}: no ground sample distance in the file (no CRS), so it cannot be resampled to "
                f"{self.resample_to} m. Set data.gsd to the image's pixel size in metres."
            )
        return Source(self.uri, self.nodata, self.resample_to / gsd, self.nearest, reading=self.reading)
