"""One open raster file: which of its bands are pixels, and which of its pixels are valid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT

from idgbr.errors import UserError
from idgbr.raster.gdal import GDAL_ERRORS, gdal_path, is_remote, open_quietly
from idgbr.raster.grid import Window, grid_of
from idgbr.raster.plausible import check_plausible

# A CRS is needed to warp at all; between two equal ones nothing is projected.
_ANY_CRS = "EPSG:3857"


class Source:
    """A raster opened for reading, optionally resampled. Belongs to the thread that opened it.

    Attributes:
        dataset: the rasterio dataset, or the virtual one that resamples it.
        native: grid of the file.
        grid: grid of what is read.
        nodata: value that marks pixels without data, None when there is none.
    """

    def __init__(
        self, uri: str, nodata: float | None, factor: float | None, nearest: bool, driver: str | None = None
    ) -> None:
        """Opens a file.

        Args:
            uri: its address.
            nodata: overrides the file's nodata value.
            factor: pixels are read this many times as large.
            nearest: resample class ids, which must not be averaged.
            driver: GDAL's name of the one format it may be; None lets GDAL find out.
        """
        self.uri = uri
        self.file = _open(uri, driver)
        self._colours = _colours(self.file)
        self.native = grid_of(self.file)
        self.nodata = nodata if nodata is not None else self.file.nodata
        self._alpha = next((i for i, c in enumerate(self._colours, 1) if c == ColorInterp.alpha), None)
        flags = self.file.mask_flag_enums[0]
        self._alike = len(set(self.file.dtypes)) == 1
        self._masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        self.dataset: Any = self.file
        if factor is not None:
            self.dataset = self._resampled(factor, nearest)
        self.grid = grid_of(self.dataset) if factor is None else self.native.scaled(factor)
        self._known: dict[tuple[int | str, ...], list[int]] = {}

    def _resampled(self, factor: float, nearest: bool) -> WarpedVRT:
        target = self.native.scaled(factor)
        add_alpha = self.nodata is None and self._alpha is None
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
            self._alpha, self._masked = warped.count, False
        return warped

    def close(self) -> None:
        if self.dataset is not self.file:
            self.dataset.close()
        self.file.close()

    def indexes(self, bands: tuple[int | str, ...]) -> list[int]:
        """1-based indices of bands given by index or by name; every band but alpha when none is given.

        Raises:
            UserError: there is no such band.
        """
        if bands not in self._known:  # asked for every window
            every = [i for i in self.file.indexes if i != self._alpha] or list(self.file.indexes)
            self._known[bands] = [self._index(band) for band in bands] if bands else every
        return self._known[bands]

    def _index(self, band: int | str) -> int:
        if isinstance(band, int) and 1 <= band <= self.file.count:
            return band
        names = self.band_names()
        if isinstance(band, str):
            for known in (self.file.descriptions, [c.name for c in self._colours]):
                lowered = [(name or "").lower() for name in known]
                if lowered.count(band.lower()) == 1:
                    return lowered.index(band.lower()) + 1
        listed = ", ".join(f"{i} ({name})" for i, name in enumerate(names, 1))
        raise UserError(f"{self.uri}: no band {band!r}; the file has {listed}. Set the bands to some of these.")

    def band_names(self) -> list[str]:
        """Per band its description, or what colour it is."""
        pairs = zip(self.file.descriptions, self._colours, strict=True)
        return [description or colour.name for description, colour in pairs]

    def dtype(self, indexes: Sequence[int]) -> np.dtype[Any]:
        """The dtype that holds the values of all these bands."""
        return np.result_type(*(self.file.dtypes[i - 1] for i in indexes))

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
        try:
            pixels = self.dataset.read(indexes, window=area, out_dtype=None if self._alike else self.dtype(indexes))
            if self._alpha is not None:
                valid = self.dataset.read(self._alpha, window=area) != 0
            elif self._masked:
                valid = self.dataset.read_masks(indexes[0], window=area) != 0
            else:
                valid = _all_valid(window.height, window.width)
        except GDAL_ERRORS as error:
            raise UserError(
                f"{self.uri}: cannot read rows {window.row} to {window.stop_row}, columns {window.col} to "
                f"{window.stop_col} of {self.grid.height} x {self.grid.width} px; the file is truncated or damaged "
                f"({reason(error)}). Copy or download it again."
            ) from error
        if self.nodata is not None:
            valid = valid & ~_equals(pixels, self.nodata).all(axis=0)
        if pixels.dtype.kind == "f":
            finite = np.isfinite(pixels)
            if not finite.all():
                valid = valid & finite.all(axis=0)
                pixels[~finite] = 0
        return pixels, valid


@lru_cache(maxsize=16)
def _all_valid(height: int, width: int) -> np.ndarray:
    """True everywhere, in one byte: most windows are valid throughout."""
    return np.broadcast_to(np.True_, (height, width))


def _equals(pixels: np.ndarray, value: float) -> np.ndarray:
    if np.isnan(value):
        return np.isnan(pixels) if pixels.dtype.kind == "f" else np.zeros(pixels.shape, dtype=bool)
    if pixels.dtype.kind != "f":
        return pixels == (int(value) if float(value).is_integer() else value)
    # Files state nodata with fewer digits than their pixels hold (-3.4e+38); six digits tell it from data.
    return np.abs(pixels - value) <= 1e-6 * abs(value)


def reason(error: BaseException) -> str:
    """GDAL's own words for an error, on one line: the deepest cause says most."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]


def _colours(file: rasterio.io.DatasetReader) -> tuple[ColorInterp, ...]:
    """What each band shows.

    GDAL remembers a thread's last error, and rasterio takes it for this call's own: after one damaged window, the next
    sound file would be called damaged. Raising it clears it.
    """
    try:
        return tuple(file.colorinterp)
    except CPLE_BaseError:
        return tuple(file.colorinterp)


def _open(uri: str, driver: str | None) -> rasterio.io.DatasetReader:
    path = gdal_path(uri)
    if not is_remote(uri) and not os.path.exists(path):
        raise UserError(f"{uri}: no such file. Expected a raster image; check the path.")
    if not is_remote(uri) and os.path.isdir(path):
        raise UserError(f"{uri}: is a folder. Expected a raster image; name a file in it or a pattern.")
    try:
        dataset = open_quietly(uri, **({"driver": driver} if driver else {}))
    except GDAL_ERRORS as error:
        raise UserError(
            f"{uri}: cannot be opened as a raster ({reason(error)}). Expected an image GDAL can read, like GeoTIFF."
        ) from error
    if dataset.count == 0:
        inside = ", ".join(dataset.subdatasets[:5]) or "none"
        raise UserError(f"{uri}: holds no bands of its own. Name one of its parts instead: {inside}")
    if np.dtype(dataset.dtypes[0]).kind not in "uif":
        raise UserError(f"{uri}: pixels are {dataset.dtypes[0]}. Expected integers or real numbers.")
    check_plausible(dataset, uri)
    return dataset
