"""Checks that a map can be sent as GeoJSON, which knows longitude and latitude only."""

from __future__ import annotations

import numpy as np
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS

from idgbr.raster.crs import crs_name
from idgbr.raster.grid import Grid
from serve_apps.problems import ProblemError

_POINTS = 21
"""Per side of the raster that is looked at."""


def check_degrees(grid: Grid) -> None:
    """Refuses a georeference that has no longitude and latitude.

    Raises:
        ProblemError: 422, a local CRS, or a place outside of the projection's domain.
    """
    if grid.crs is None:
        return
    crs = CRS.from_wkt(grid.crs)
    way_out = "ask for image/tiff or image/png, or correct the image's georeference"
    if not (crs.is_projected or crs.is_geographic):
        raise ProblemError.of(
            422, "Unprocessable image", f"image: its CRS {crs_name(grid.crs)} is local, and GeoJSON holds longitude "
            f"and latitude; {way_out}",
        )  # fmt: skip
    cols, rows = np.meshgrid(np.linspace(0, grid.width, _POINTS), np.linspace(0, grid.height, _POINTS))
    a, b, c, d, e, f = grid.transform
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    try:
        longitude, latitude = Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True).transform(x, y)
    except ProjError as error:
        raise ProblemError.of(
            422, "Unprocessable image", f"image: its CRS {crs_name(grid.crs)} cannot be transformed to longitude and "
            f"latitude, which GeoJSON holds; {way_out}",
        ) from error  # fmt: skip
    inside = np.isfinite(longitude) & np.isfinite(latitude) & (np.abs(latitude) <= 90.0)
    if not inside.all():
        raise ProblemError.of(
            422, "Unprocessable image", f"image: {np.mean(~inside):.0%} of it lies outside of the domain of its CRS "
            f"{crs_name(grid.crs)} (corner at x {c:g}, y {f:g}), where there is no longitude and latitude for GeoJSON; "
            f"{way_out}",
        )  # fmt: skip
