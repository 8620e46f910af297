"""Writing maps: rows as they come, in the end a cloud-optimised GeoTIFF under its final name, or nothing at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import rasterio
import rasterio.shutil

from idgbr.errors import UserError
from idgbr.raster.gdal import GDAL_ERRORS, gdal_env, is_remote, open_quietly
from idgbr.raster.grid import Grid
from idgbr.raster.source import reason

BLOCK = 512

_CACHE_MB = 8
"""GDAL's block cache while writing: rows pass through once."""

_RAW_ROWS = 8
"""Rows of a block of the raw file: strips pass through whole."""


@dataclass(frozen=True)
class BandSpec:
    """A band of a map: its name, dtype and the value where there is no data."""

    name: str
    dtype: str = "uint8"
    nodata: float | None = 255


class CogWriter:
    """Streams rows into a cloud-optimised GeoTIFF.

    Rows go to a plain file in a hidden folder beside the result; on success that is turned into the COG (overviews
    by nearest neighbour, since class ids have no mean), read back once, and renamed. On any error the hidden folder
    goes, and the final name is as it was before.

    Example:
        with CogWriter("map.tif", grid, [BandSpec("class")], colours={0: (0, 0, 0)}) as writer:
            for row, strip in strips:
                writer.write(row, strip)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        grid: Grid,
        bands: Sequence[BandSpec],
        colours: Mapping[int, tuple[int, int, int]] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Names the result; nothing is written before the context is entered.

        Args:
            path: final name.
            grid: size and georeference.
            bands: the bands; a GeoTIFF has one dtype and one nodata value for all of them.
            colours: colour of each class id of the first band. A TIFF holds a colour table beside one band only.
            tags: what to record in the file.
        """
        self.path = os.fspath(path)
        self.grid, self.bands = grid, list(bands)
        self.colours, self.tags = dict(colours or {}), dict(tags or {})
        if len({(band.dtype, band.nodata) for band in self.bands}) != 1:
            raise ValueError("all bands of a GeoTIFF share one dtype and one nodata value")
        self._rows = 0

    @property
    def raw_bytes(self) -> int:
        """Disk the rows need while they are written."""
        return self.grid.height * self.grid.width * len(self.bands) * np.dtype(self.bands[0].dtype).itemsize

    def __enter__(self) -> Self:
        parent = os.path.dirname(os.path.abspath(self.path))
        if is_remote(self.path):
            raise UserError(
                f"{self.path}: maps are written to a local or mounted disk. Name a folder, and upload then."
            )
        try:
            os.makedirs(parent, exist_ok=True)
            self._folder = tempfile.mkdtemp(prefix=f".{os.path.basename(self.path)}.", dir=parent)
        except OSError as error:
            raise UserError(f"{parent}: cannot be written ({error.strerror}). Name another output folder.") from error
        try:
            free = shutil.disk_usage(parent).free
            if free < self.raw_bytes:
                raise UserError(
                    f"{self.path}: needs {self.raw_bytes / 2**20:.0f} MB of disk, {parent} has {free / 2**20:.0f} MB "
                    "free. Free some space or name another output folder."
                )
            with gdal_env(cache_mb=_CACHE_MB):
                self._raw = self._create(os.path.join(self._folder, "raw.tif"))
        except BaseException as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise self._translated(error) from error
        return self

    def _create(self, path: str) -> rasterio.io.DatasetWriter:
        raw = open_quietly(
            path,
            mode="w",
            driver="GTiff",
            height=self.grid.height,
            width=self.grid.width,
            count=len(self.bands),
            dtype=self.bands[0].dtype,
            nodata=self.bands[0].nodata,
            crs=rasterio.crs.CRS.from_wkt(self.grid.crs) if self.grid.crs else None,
            transform=self.grid.affine,
            interleave="band",
            blockysize=_RAW_ROWS,
            bigtiff="IF_SAFER",
            # Said nothing, GDAL takes three bands of bytes for colours and a fourth for transparency.
            photometric="MINISBLACK",
        )
        for i, band in enumerate(self.bands, 1):
            raw.set_band_description(i, band.name)
        if self.colours and len(self.bands) == 1:
            raw.write_colormap(1, {value: (*colour, 255) for value, colour in self.colours.items()})
        raw.update_tags(**self.tags)
        return raw

    def write(self, row: int, values: np.ndarray) -> None:
        """Writes (C, rows, width) at a row; rows come from top to bottom without a gap.

        Raises:
            UserError: the disk is full.
        """
        if row != self._rows or values.shape[0] != len(self.bands) or values.shape[2] != self.grid.width:
            raise ValueError(
                f"expected ({len(self.bands)}, rows, {self.grid.width}) at row {self._rows}, "
                f"got {values.shape} at {row}"
            )
        window = rasterio.windows.Window(0, row, self.grid.width, values.shape[1])
        try:
            with gdal_env(cache_mb=_CACHE_MB):
                self._raw.write(np.ascontiguousarray(values, dtype=self.bands[0].dtype), window=window)
        except GDAL_ERRORS as error:
            raise self._translated(error) from error
        self._rows += values.shape[1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except GDAL_ERRORS as failure:
            raise self._translated(failure) from failure
        finally:
            with contextlib.suppress(*GDAL_ERRORS):  # reported by now, or beside the error that ended the block
                self._raw.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        if self._rows != self.grid.height:
            raise ValueError(f"{self._rows} of {self.grid.height} rows were written")
        cog = os.path.join(self._folder, "cog.tif")
        with gdal_env(cache_mb=_CACHE_MB):
            self._raw.close()
            if os.path.getsize(os.path.join(self._folder, "raw.tif")) < self.raw_bytes:
                raise OSError("rows are missing at the end of the file")
            rasterio.shutil.copy(
                os.path.join(self._folder, "raw.tif"),
                cog,
                driver="COG",
                blocksize=BLOCK,
                compress="DEFLATE",
                overview_resampling="NEAREST",
                overview_compress="DEFLATE",
                bigtiff="IF_SAFER",
                num_threads=1,
            )
            _read_back(cog)
        os.replace(cog, self.path)

    def _translated(self, error: BaseException) -> BaseException:
        if not isinstance(error, GDAL_ERRORS):
            return error
        return UserError(
            f"{self.path}: cannot be written ({reason(error)}). Expected {self.raw_bytes / 2**20:.0f} MB and the "
            "compressed result to fit: check free disk space and quota, or name another output folder."
        )


def _read_back(path: str) -> None:
    """Decodes every block once: GDAL reports a full disk at closing time as a log line at most."""
    with open_quietly(path) as cog:
        for _, window in cog.block_windows(1):
            cog.read(window=window)
