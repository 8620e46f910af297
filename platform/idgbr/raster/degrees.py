"""Whether a raster has longitudes and latitudes, which GeoJSON holds."""

from __future__ import annotations

import numpy as np
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS

from idgbr.raster.crs import crs_name
from idgbr.raster.grid import Grid

_POINTS = 21
"""Per side of the raster that is looked at."""


def without_degrees(grid: Grid) -> str:
    """Why a raster has no longitude and latitude, as a clause; empty where it has them, or has no CRS.

    Its CRS may be local, or the raster may lie outside of the domain of its CRS, in whole or in part.
    """
    if grid.crs is None:
        return ""
    crs = CRS.from_wkt(grid.crs)
    if not (crs.is_projected or crs.is_geographic):
        return f"its CRS {crs_name(grid.crs)} is local, and GeoJSON holds longitude and latitude"
    cols, rows = np.meshgrid(np.linspace(0, grid.width, _POINTS), np.linspace(0, grid.height, _POINTS))
    a, b, c, d, e, f = grid.transform
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    try:
        longitude, latitude = Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True).transform(x, y)
    except ProjError:
        return f"its CRS {crs_name(grid.crs)} cannot be transformed to longitude and latitude, which GeoJSON holds"
    # Longitudes from 0 to 360 are in use, too.
    inside = np.isfinite(longitude) & np.isfinite(latitude) & (np.abs(latitude) <= 90) & (np.abs(longitude) <= 360)
    if inside.all():
        return ""
    return (
        f"{np.mean(~inside):.0%} of it lies outside of the domain of its CRS {crs_name(grid.crs)} (corner at x {c:g}, "
        f"y {f:g}), where there is no longitude and latitude for GeoJSON"
    )
