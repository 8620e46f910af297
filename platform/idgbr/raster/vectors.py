"""Polygons from a vector file, brought to a raster's coordinates and burnt onto its pixels."""

from __future__ import annotations

import os
from functools import lru_cache

import geopandas as gpd
import numpy as np
import rasterio.features
from pyogrio.errors import DataSourceError
from shapely import make_valid

from idgbr.errors import UserError
from idgbr.raster.crs import crs_name
from idgbr.raster.gdal import gdal_env, gdal_path, is_remote, version_of
from idgbr.raster.grid import Grid


def read_polygons(uri: str, grid: Grid) -> gpd.GeoDataFrame:
    """The polygons of a vector file in a grid's CRS, those far from the grid included.

    Raises:
        UserError: the file is missing or unreadable, holds no polygons, or only one of file and grid has a CRS.
    """
    return _read(uri, grid.crs, version_of(uri))


@lru_cache(maxsize=8)
def _read(uri: str, crs: str | None, version: tuple[int, int]) -> gpd.GeoDataFrame:
    if not is_remote(uri) and not os.path.exists(gdal_path(uri)):
        raise UserError(f"{uri}: no such file. Expected a vector file of polygons; check the path.")
    try:
        with gdal_env(uri):
            frame = gpd.read_file(gdal_path(uri), engine="pyogrio")
    except (DataSourceError, OSError, ValueError) as error:
        raise UserError(
            f"{uri}: cannot be read as a vector file ({error}). Expected GeoPackage, GeoJSON or Shapefile."
        ) from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise UserError(f"{uri}: has no geometries. Expected polygons.")
    frame = frame[frame.geometry.notna() & ~frame.geometry.is_empty]
    found = sorted(set(frame.geom_type) - {"Polygon", "MultiPolygon", "GeometryCollection"})
    if found:
        raise UserError(f"{uri}: holds {', '.join(found)}. Expected polygons only.")
    if (frame.crs is None) != (crs is None):
        theirs = crs_name(frame.crs.to_wkt()) if frame.crs is not None else "none"
        raise UserError(
            f"{uri}: has CRS {theirs}, the image has CRS {crs_name(crs)}; their places cannot be compared. "
            "Georeference the one that lacks it."
        )
    frame = frame.set_geometry(make_valid(frame.geometry.values))
    return frame if crs is None else frame.to_crs(crs)


def burn(frame: gpd.GeoDataFrame, values: np.ndarray, grid: Grid, fill: int) -> np.ndarray:
    """Burns polygons onto a grid; a pixel belongs to a polygon that holds its centre, later ones win.

    Args:
        frame: polygons in the grid's CRS.
        values: (N,) value of each polygon, 0 to 255.
        grid: where to burn.
        fill: value outside of the polygons.

    Returns:
        (H, W) uint8.
    """
    near = np.sort(frame.sindex.intersection(grid.bounds))
    if near.size == 0:
        return np.full((grid.height, grid.width), fill, dtype=np.uint8)
    shapes = zip(frame.geometry.values[near], values[near].tolist(), strict=True)
    return rasterio.features.rasterize(
        shapes, out_shape=(grid.height, grid.width), transform=grid.affine, fill=fill, dtype="uint8"
    )
