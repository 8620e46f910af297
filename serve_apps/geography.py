"""Checks that a map can be sent as GeoJSON, which knows longitude and latitude only."""

from __future__ import annotations

from idgbr.raster.degrees import without_degrees
from idgbr.raster.grid import Grid
from serve_apps.problems import ProblemError


def check_degrees(grid: Grid) -> None:
    """Refuses a georeference that has no longitude and latitude.

    Raises:
        ProblemError: 422, a local CRS, or a place outside of the projection's domain.
    """
    if found := without_degrees(grid):
        way_out = "ask for image/tiff or image/png, or correct the image's georeference"
        raise ProblemError.of(422, "Unprocessable image", f"image: {found}; {way_out}")
