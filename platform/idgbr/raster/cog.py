"""Writing maps: rows as they come, in the end a cloud-optimised GeoTIFF under its final name, or nothing at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from xml.etree.ElementTree import Element, ElementTree, SubElement

import numpy as np
import rasterio.dtypes
import rasterio.shutil

from idgbr.errors import UserError
from idgbr.raster.gdal import GDAL_ERRORS, gdal_env, is_remote, open_quietly
from idgbr.raster.grid import IDENTITY, Grid
from idgbr.raster.opening import reason

_CACHE_MB = 8
"""GDAL's block cache while writing: rows pass through once."""

_ROWS_FILE = "rows"
"""Rows as they came, each band after band: their number is the file's size."""


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
    goes, and the final name is as it was before; a folder named by `work` stays with its rows instead, and the next
    writer that names it goes on after them.

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
        work: str = "",
        block: int = 512,
    ) -> None:
        """Names the result; nothing is written before the context is entered.

        Args:
            path: final name.
            grid: size and georeference.
            bands: the bands; a GeoTIFF has one dtype and one nodata value for all of them.
            colours: colour of each class id of the first band. A TIFF holds a colour table beside one band only.
            tags: what to record in the file.
            work: folder of this one map's rows, on the result's disk; what is in it must have been made the same way.
            block: side of the file's blocks in pixels.
        """
        self.path = os.fspath(path)
        self.grid, self.bands = grid, list(bands)
        self.colours, self.tags = dict(colours or {}), dict(tags or {})
        if len({(band.dtype, band.nodata) for band in self.bands}) != 1:
            raise ValueError("all bands of a GeoTIFF share one dtype and one nodata value")
        self._folder, self._block = work, block
        self._keeps = bool(work)

    @property
    def rows(self) -> int:
        """Rows that are written, by an interrupted writer before this one too."""
        path = os.path.join(self._folder, _ROWS_FILE)
        return os.path.getsize(path) // self._row_bytes if self._folder and os.path.exists(path) else 0

    @property
    def _row_bytes(self) -> int:
        return self.grid.width * len(self.bands) * np.dtype(self.bands[0].dtype).itemsize

    @property
    def raw_bytes(self) -> int:
        """Disk the rows need while they are written."""
        return self.grid.height * self._row_bytes

    def __enter__(self) -> Self:
        parent = os.path.dirname(os.path.abspath(self.path))
        if is_remote(self.path):
            raise UserError(
                f"{self.path}: maps are written to a local or mounted disk. Name a folder, and upload then."
            )
        try:
            os.makedirs(parent, exist_ok=True)
            if self._keeps:
                os.makedirs(self._folder, exist_ok=True)
            else:
                self._folder = tempfile.mkdtemp(prefix=f".{os.path.basename(self.path)}.", dir=parent)
        except OSError as error:
            raise UserError(f"{parent}: cannot be written ({error.strerror}). Name another output folder.") from error
        try:
            free, needed = shutil.disk_usage(parent).free, self.raw_bytes - self.rows * self._row_bytes
            if free < needed:
                raise UserError(
                    f"{self.path}: needs {needed / 2**20:.0f} MB of disk, {parent} has {free / 2**20:.0f} MB "
                    "free. Free some space or name another output folder."
                )
            self._open()
        except BaseException as error:
            self._clear()
            raise self._translated(error) from error
        return self

    def _open(self) -> None:
        rows = self.rows
        self._raw = open(os.path.join(self._folder, _ROWS_FILE), "ab", buffering=0)  # noqa: SIM115
        try:
            fcntl.flock(self._raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.path}: is being made by another job just now. Wait for that one.") from None
        self._raw.truncate(rows * self._row_bytes)

    def write(self, row: int, values: np.ndarray) -> None:
        """Writes (C, rows, width) at a row; rows come from top to bottom without a gap.

        Raises:
            UserError: the disk is full.
        """
        if row != self.rows or values.shape[0] != len(self.bands) or values.shape[2] != self.grid.width:
            raise ValueError(
                f"expected ({len(self.bands)}, rows, {self.grid.width}) at row {self.rows}, got {values.shape} at {row}"
            )
        data = memoryview(values.transpose(1, 0, 2).astype(self.bands[0].dtype, copy=False).tobytes())
        try:
            while data:
                data = data[self._raw.write(data) :]
        except OSError as error:
            raise self._translated(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        done = False
        try:
            if kind is None:
                self._finish()
                done = True
        except GDAL_ERRORS as failure:
            raise self._translated(failure) from failure
        finally:
            self._raw.close()
            self._clear(done)

    def _clear(self, done: bool = False) -> None:
        if done or not self._keeps:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        if self.rows != self.grid.height:
            raise ValueError(f"{self.rows} of {self.grid.height} rows were written")
        cog, raw = (os.path.join(self._folder, name) for name in ("cog.tif", "raw.vrt"))
        self._describe(raw)
        with gdal_env(cache_mb=_CACHE_MB):
            rasterio.shutil.copy(
                raw,
                cog,
                driver="COG",
                blocksize=self._block,
                compress="DEFLATE",
                overview_resampling="NEAREST",
                overview_compress="DEFLATE",
                bigtiff="IF_SAFER",
                num_threads=1,
            )
            _read_back(cog)
        os.replace(cog, self.path)

    def _describe(self, path: str) -> None:
        """Writes the GDAL description of the rows, which makes them a raster."""
        root = Element("VRTDataset", rasterXSize=str(self.grid.width), rasterYSize=str(self.grid.height))
        if self.grid.crs:
            SubElement(root, "SRS").text = self.grid.crs
        if self.grid.transform != IDENTITY:
            SubElement(root, "GeoTransform").text = ", ".join(map(repr, self.grid.affine.to_gdal()))
        tags = SubElement(root, "Metadata")
        for key, value in self.tags.items():
            SubElement(tags, "MDI", key=key).text = str(value)
        dtype = np.dtype(self.bands[0].dtype)
        for i, spec in enumerate(self.bands):
            kind = rasterio.dtypes._gdal_typename(dtype.name)
            band = SubElement(root, "VRTRasterBand", dataType=kind, band=str(i + 1), subClass="VRTRawRasterBand")
            SubElement(band, "Description").text = spec.name
            if spec.nodata is not None:
                SubElement(band, "NoDataValue").text = repr(spec.nodata)
            if self.colours and len(self.bands) == 1:
                SubElement(band, "ColorInterp").text = "Palette"
                table = SubElement(band, "ColorTable")
                for entry in range(max(self.colours) + 1):
                    colour = (*self.colours.get(entry, (0, 0, 0)), 255)
                    SubElement(table, "Entry", {f"c{k}": str(part) for k, part in enumerate(colour, 1)})
            SubElement(band, "SourceFilename", relativetoVRT="1").text = _ROWS_FILE
            SubElement(band, "ImageOffset").text = str(i * self.grid.width * dtype.itemsize)
            SubElement(band, "PixelOffset").text = str(dtype.itemsize)
            SubElement(band, "LineOffset").text = str(self._row_bytes)
            SubElement(band, "ByteOrder").text = "LSB" if sys.byteorder == "little" else "MSB"
        ElementTree(root).write(path, encoding="utf-8")

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
