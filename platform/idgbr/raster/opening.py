"""Opening a raster file: what its bands are, and how doubts about it are settled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from idgbr.errors import UserError
from idgbr.raster.alpha import Alpha, looks_like_mask, probe_windows
from idgbr.raster.crs import crs_name
from idgbr.raster.foreign import foreign
from idgbr.raster.gdal import GDAL_ERRORS, gdal_path, is_remote, open_quietly
from idgbr.raster.plausible import check_numbers, check_plausible
from idgbr.raster.png import png_ends

Gcps = Literal["refuse", "warp", "ignore"]
"""What is done with a file whose place is known by ground control points alone."""

_masks: dict[tuple[str, tuple[int, int], int], bool] = {}
"""Which alpha bands look like masks: chips are opened again and again."""


@dataclass(frozen=True)
class Reading:
    """How doubts about a file are settled.

    Attributes:
        alpha: what a band tagged alpha is.
        nodata_tolerance: values that are no further than this from nodata in every band are nodata, too.
        gcps: what is done where ground control points alone say where the pixels lie.
    """

    alpha: Alpha = "auto"
    nodata_tolerance: float = 0.0
    gcps: Gcps = "ignore"


PLAIN = Reading()


def reason(error: BaseException) -> str:
    """GDAL's own words for an error, on one line: the deepest cause says most."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]


def colours_of(file: rasterio.io.DatasetReader) -> tuple[ColorInterp, ...]:
    """What each band shows.

    GDAL remembers a thread's last error, and rasterio takes it for this call's own: after one damaged window, the next
    sound file would be called damaged. Raising it clears it.
    """
    try:
        return tuple(file.colorinterp)
    except CPLE_BaseError:
        return tuple(file.colorinterp)


def alpha_band(file: rasterio.io.DatasetReader) -> int | None:
    return next((i for i, colour in enumerate(colours_of(file), 1) if colour == ColorInterp.alpha), None)


def is_mask(uri: str, version: tuple[int, int], file: Any, band: int, alpha: Alpha) -> bool:
    if alpha != "auto":
        return alpha == "mask"
    key = (uri, version, band)
    if key not in _masks:
        windows = probe_windows(file.height, file.width)
        try:
            _masks[key] = looks_like_mask(file.read(band, window=window.to_rasterio()) for window in windows)
        except GDAL_ERRORS:
            return True  # damaged: reading says so
    return _masks[key]


def without_alpha(file: rasterio.io.DatasetReader) -> rasterio.io.DatasetReader:
    """The file as a virtual one in which no band is tagged alpha."""
    with MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(file, memory.name, driver="VRT")
        text = memory.read().decode()
    return open_quietly(text.replace("<ColorInterp>Alpha</ColorInterp>", "<ColorInterp>Undefined</ColorInterp>"))


def needs_points(uri: str, file: rasterio.io.DatasetReader, gcps: Gcps) -> bool:
    """Whether the file is to be warped by its ground control points.

    Raises:
        UserError: its place is known by ground control points or a sensor model alone, and nobody said what to do.
    """
    if not file.transform.is_identity or gcps == "ignore":
        return False
    points, crs = file.gcps
    if points and crs is None:
        raise UserError(
            f"{uri}: its place is known by {len(points)} ground control points alone, of which no CRS is known. Warp "
            "it first (gdalwarp -s_srs EPSG:... -tps), or read it without a place: data.gcps ignore, --gcps ignore"
        )
    if points and gcps == "refuse":
        raise UserError(
            f"{uri}: its place is known by {len(points)} ground control points alone (in {crs_name(crs.to_wkt())}), so "
            "its pixels lie on no grid. Set data.gcps: warp (--gcps warp for a map) to read it warped into that CRS, "
            "or warp it first (gdalwarp -tps -t_srs)"
        )
    if not points and file.rpcs is not None:
        raise UserError(
            f"{uri}: its place is known by a sensor model (RPC) alone, so its pixels lie on no grid. Orthorectify it "
            "first (gdalwarp -rpc -to RPC_DEM=...), or read it without a place: data.gcps ignore, --gcps ignore"
        )
    return bool(points)


def warped_by_points(file: rasterio.io.DatasetReader) -> WarpedVRT:
    crs = file.gcps[1]
    add_alpha = file.nodata is None and alpha_band(file) is None
    return WarpedVRT(file, src_crs=crs, crs=crs, resampling=Resampling.bilinear, add_alpha=add_alpha)


def palette_of(
    file: rasterio.io.DatasetReader, colours: Sequence[ColorInterp]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    """Colours (3, N) of the values of a file of one band, and which of them are opaque (N,); None without a table."""
    if len(colours) != 1 or colours[0] != ColorInterp.palette:
        return None
    try:
        table = file.colormap(1)
    except ValueError:
        return None
    found = np.zeros((max(table) + 1, 4), np.uint8)
    found[list(table)] = list(table.values())
    return found[:, :3].T.copy(), found[:, 3] > 0


def open_raster(uri: str, name: str, driver: str | None) -> rasterio.io.DatasetReader:
    path = gdal_path(uri)
    if not is_remote(uri) and not os.path.exists(path):
        raise UserError(f"{uri}: no such file. Expected a raster image; check the path.")
    if not is_remote(uri) and os.path.isdir(path):
        raise UserError(f"{uri}: is a folder. Expected a raster image; name a file in it or a pattern.")
    try:
        dataset = open_quietly(name, **({"driver": driver} if driver else {}))
    except GDAL_ERRORS as error:
        if what := foreign(path):
            raise UserError(f"{uri}: {what}. Expected a raster image.") from error
        raise UserError(
            f"{uri}: cannot be opened as a raster ({reason(error)}). Expected an image GDAL can read, like GeoTIFF."
        ) from error
    if dataset.driver == "PNG" and os.path.isfile(path) and not png_ends(path):
        raise UserError(f"{uri}: the PNG is cut off, the file is truncated or damaged. Copy or download it again.")
    if dataset.count == 0:
        inside = ", ".join(dataset.subdatasets[:5]) or "none"
        raise UserError(f"{uri}: holds no bands of its own. Name one of its parts instead: {inside}")
    check_numbers(dataset, uri)
    check_plausible(dataset, uri)
    return dataset
