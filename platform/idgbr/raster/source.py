"""One open raster file: which of its bands are pixels, and which of its pixels are valid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from scipy.ndimage import maximum_filter

from idgbr.errors import UserError
from idgbr.raster.gdal import GDAL_ERRORS, version_of
from idgbr.raster.grid import Window, grid_of
from idgbr.raster.missing import parts_of
from idgbr.raster.opening import (
    PLAIN,
    Reading,
    alpha_band,
    colours_of,
    is_mask,
    needs_points,
    open_raster,
    palette_of,
    reason,
    warped_by_points,
    without_alpha,
)

# A CRS is needed to warp at all; between two equal ones nothing is projected.
_ANY_CRS = "EPSG:3857"
_TABLE_COLOURS = {-1: ColorInterp.red, -2: ColorInterp.green, -3: ColorInterp.blue}
_HUGE = 1e30
_OF_PALETTE: dict[int | str, int] = {1: -1, 2: -2, 3: -3, "red": -1, "green": -2, "blue": -3}


class Source:
    """A raster opened for reading, optionally resampled. Belongs to the thread that opened it.

    Attributes:
        file: the rasterio dataset, or the virtual one that warps it by its ground control points.
        dataset: what is read: `file`, or the virtual dataset that resamples it.
        native: grid of the file.
        grid: grid of what is read.
        nodata: value that marks pixels without data, None when there is none.
        alpha: 1-based index of the band that says what is valid, None when there is none.
        tagged_alpha: index of the file's band that is tagged alpha, whatever it holds; None when there is none.
        masked: whether the file has a mask of its own beside bands and alpha.
        by_points: whether it is read warped by its ground control points.
        parts: what a virtual raster lacks.
    """

    def __init__(
        self,
        uri: str,
        nodata: float | None,
        factor: float | None,
        nearest: bool,
        driver: str | None = None,
        reading: Reading = PLAIN,
    ) -> None:
        """Opens a file.

        Args:
            uri: its address.
            nodata: overrides the file's nodata value.
            factor: pixels are read this many times as large.
            nearest: resample class ids, which must not be averaged.
            driver: GDAL's name of the one format it may be; None lets GDAL find out.
            reading: how doubts about the file are settled.
        """
        self.uri = uri
        self.parts = parts_of(uri)
        file = open_raster(uri, self.parts.name, driver)
        self._factor, self._tolerance = factor, reading.nodata_tolerance
        tagged = alpha_band(file)
        mask = tagged is not None and is_mask(uri, version_of(uri), file, tagged, reading.alpha)
        self.tagged_alpha, self.by_points = tagged, needs_points(uri, file, reading.gcps)
        if tagged is not None and not mask and (self.by_points or factor is not None):
            file = without_alpha(file)  # GDAL warps no pixel whose alpha is 0
        self._beneath = file
        self.file = warped_by_points(file) if self.by_points else file
        self._colours = colours_of(self.file)
        self.native = grid_of(self.file)
        self.nodata = nodata if nodata is not None else self.file.nodata
        # Warping by points marks what lies outside of the image in an alpha band of its own.
        self.alpha = tagged if mask else (alpha_band(self.file) if self.by_points else None)
        self._unused = {self.alpha} | ({tagged} if reading.alpha == "ignore" else set())
        flags = self.file.mask_flag_enums[0]
        self._alike = len(set(self.file.dtypes)) == 1
        self.masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        self._palette = palette_of(self.file, self._colours)
        self.dataset: Any = self.file
        if factor is not None:
            self.dataset = self._resampled(factor, nearest or self._palette is not None)
        self.grid = grid_of(self.dataset) if factor is None else self.native.scaled(factor)
        self._known: dict[tuple[int | str, ...], list[int]] = {}

    def _resampled(self, factor: float, nearest: bool) -> WarpedVRT:
        target = self.native.scaled(factor)
        add_alpha = self.nodata is None and self.alpha is None
        warped = WarpedVRT(
            self.file,
            src_crs=_ANY_CRS,
            crs=_ANY_CRS,
            src_transform=self.native.affine,
            transform=target.affine,
            height=target.height,
            width=target.width,
            resampling=Resampling.nearest if nearest else Resampling.bilinear,
            src_nodata=self.nodata,
            nodata=self.nodata,
            add_alpha=add_alpha,
        )
        if add_alpha:
            self.alpha, self.masked = warped.count, False
        return warped

    def close(self) -> None:
        for dataset in {id(d): d for d in (self.dataset, self.file, self._beneath)}.values():
            dataset.close()

    def indexes(self, bands: tuple[int | str, ...]) -> list[int]:
        """1-based indices of bands given by index or by name; every band but alpha when none is given.

        Where a file has one band with a colour table and several bands or colours are asked for, they are those of the
        table: -1 for red, -2 for green, -3 for blue.

        Raises:
            UserError: there is no such band.
        """
        if bands not in self._known:  # asked for every window
            every = [i for i in self.file.indexes if i not in self._unused] or list(self.file.indexes)
            self._known[bands] = [self._index(band, bands) for band in bands] if bands else every
        return self._known[bands]

    def _index(self, band: int | str, bands: tuple[int | str, ...]) -> int:
        if self._palette is not None and bands != (1,) and band in _OF_PALETTE:
            return _OF_PALETTE[band]
        if isinstance(band, int) and 1 <= band <= self.file.count:
            return band
        names = self.band_names()
        if isinstance(band, str):
            for known in (self.file.descriptions, [c.name for c in self._colours]):
                lowered = [(name or "").lower() for name in known]
                if lowered.count(band.lower()) == 1:
                    return lowered.index(band.lower()) + 1
        listed = ", ".join(f"{i} ({name})" for i, name in enumerate(names, 1))
        raise UserError(
            f"{self.uri}: no band {band!r}; the file has {listed}. Name as many of these in the same order: data.bands "
            "for training, --bands-from for a map"
        )

    def band_names(self) -> list[str]:
        """Per band its description, or what colour it is."""
        pairs = zip(self.file.descriptions, self._colours, strict=True)
        return [description or colour.name for description, colour in pairs]

    def dtype(self, indexes: Sequence[int]) -> np.dtype[Any]:
        """The dtype that holds the values of all these bands."""
        return np.result_type(*(self.file.dtypes[i - 1] if i > 0 else "uint8" for i in indexes))

    def colour(self, band: int) -> ColorInterp:
        """What a band shows by its tag: one of the file's, or a colour of its table as `indexes` gives it."""
        return _TABLE_COLOURS[band] if band < 0 else self._colours[band - 1]

    def read_alpha(self, window: Window, band: int) -> np.ndarray:
        """Values of a band that is tagged alpha: (H, W)."""
        return np.asarray(self._beneath.read(band, window=window.to_rasterio()))

    def read_native(self, window: Window, indexes: list[int]) -> np.ndarray:
        """Pixels (B, H, W) of the file, neither resampled nor judged."""
        return np.asarray(self.file.read(indexes, window=window.to_rasterio(), out_dtype=self.dtype(indexes)))

    def read(self, window: Window, indexes: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and validity of a window that lies inside.

        A pixel is valid unless alpha or the file's mask is zero there, every read band holds the nodata value, or
        any of them is not finite.

        Returns:
            (B, H, W) in the file's dtype and (H, W) bool, not to be written to.

        Raises:
            UserError: the file is damaged there.
        """
        area = window.to_rasterio()
        colours = indexes[0] < 0
        try:
            out = None if self._alike else self.dtype(indexes)
            pixels = self.dataset.read([1] if colours else indexes, window=area, out_dtype=out)
            valid = _all_valid(window.height, window.width)
            if self.alpha is not None:
                valid = self.dataset.read(self.alpha, window=area) != 0
            if self.masked:
                valid = valid & (self.dataset.read_masks(1 if colours else indexes[0], window=area) != 0)
        except GDAL_ERRORS as error:
            raise UserError(
                f"{self.uri}: cannot read rows {window.row} to {window.stop_row}, columns {window.col} to "
                f"{window.stop_col} of {self.grid.height} x {self.grid.width} px; the file is truncated or damaged "
                f"({reason(error)}). Copy or download it again."
            ) from error
        if self.nodata is not None:
            valid = valid & ~equal_to(pixels, self.nodata, self._tolerance).all(axis=0)
        if self.parts.layers:
            valid = valid & ~self.unread(window, indexes)
        if pixels.dtype.kind == "f":
            finite = np.isfinite(pixels)
            if not finite.all():
                valid = valid & finite.all(axis=0)
                pixels[~finite] = 0
        if colours:
            assert self._palette is not None
            table, opaque = self._palette
            at = np.minimum(pixels[0], len(opaque) - 1)
            return table[[-1 - i for i in indexes]][:, at], valid & opaque[at]
        return pixels, valid

    def unread(self, window: Window, indexes: Sequence[int]) -> np.ndarray:
        """(H, W) bool: which pixels of a window are of parts that are missing."""
        if self._factor is None:
            return self.parts.unread(window, _of_file(indexes))
        # Of the file's pixels that a resampled one is made of, none may be missing.
        factor, reach, around = self._factor, math.ceil(self._factor), self._native(window)
        mask = maximum_filter(self.parts.unread(around, _of_file(indexes)), 2 * reach + 1)
        rows = ((window.row + np.arange(window.height) + 0.5) * factor).astype(int) - around.row
        cols = ((window.col + np.arange(window.width) + 0.5) * factor).astype(int) - around.col
        return np.asarray(mask[np.ix_(rows, cols)])

    def missing(self, window: Window, indexes: Sequence[int]) -> list[str]:
        """Paths of the missing parts that reach into a window."""
        area = window if self._factor is None else self._native(window)
        return [part.path for part in self.parts.missing(_of_file(indexes)) if part.place.intersect(area)]

    def _native(self, window: Window) -> Window:
        """The file's pixels that a window of resampled ones is made of, and some more."""
        factor, reach = self._factor or 1.0, math.ceil(self._factor or 1.0)
        row, col = (math.floor(at * factor) - reach for at in (window.row, window.col))
        height, width = (math.ceil(side * factor) + 2 * reach + 1 for side in (window.height, window.width))
        return Window(row, col, height, width)


def _of_file(indexes: Sequence[int]) -> list[int]:
    return [max(i, 1) for i in indexes]  # colours of a table are of the first band


@lru_cache(maxsize=16)
def _all_valid(height: int, width: int) -> np.ndarray:
    """True everywhere, in one byte: most windows are valid throughout."""
    return np.broadcast_to(np.True_, (height, width))


def equal_to(pixels: np.ndarray, value: float, tolerance: float = 0.0) -> np.ndarray:
    """Which pixels hold a nodata value, or one no further from it than a tolerance."""
    if np.isnan(value):
        return np.isnan(pixels) if pixels.dtype.kind == "f" else np.zeros(pixels.shape, dtype=bool)
    if tolerance:
        return np.abs(pixels.astype(np.float64) - value) <= tolerance
    if pixels.dtype.kind != "f":
        return pixels == (int(value) if float(value).is_integer() else value)
    # Files state nodata with fewer digits than their pixels hold: six tell it from data, two do so of -3.4e+38.
    return np.abs(pixels - value) <= (1e-6 if abs(value) < _HUGE else 1e-2) * abs(value)
