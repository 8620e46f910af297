"""Polygons from a vector file, brought to a raster's coordinates and burnt onto its pixels."""

from __future__ import annotations

import os
from collections import Counter
from functools import lru_cache

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio.features
from pyogrio.errors import DataLayerError, DataSourceError
from shapely import make_valid

from idgbr.errors import UserError
from idgbr.raster.crs import crs_name, horizontal
from idgbr.raster.frames import read_frame
from idgbr.raster.gdal import gdal_env, gdal_path, is_remote, version_of
from idgbr.raster.grid import Grid

NO_VALUE = "null"
"""How the value of an attribute that has none is called, in messages and in `data.label`."""

_POLYGONS = ("Polygon", "MultiPolygon", "Unknown", "GeometryCollection", "CurvePolygon", "MultiSurface")
"""Names of geometry types of layers that may hold polygons."""


def read_polygons(uri: str, grid: Grid, layer: str = "") -> gpd.GeoDataFrame:
    """The polygons of a vector file in a grid's CRS, those far from the grid included.

    Args:
        uri: the file, or the folder of a file geodatabase.
        grid: the raster, for its CRS.
        layer: which of its layers; empty: the one that has polygons.

    Raises:
        UserError: the file is missing or unreadable, holds no polygons, or several layers of them while none is named,
            or only one of file and grid has a CRS.
    """
    return _read(uri, grid.crs, layer, version_of(uri))


def polygon_layers(uri: str) -> list[str]:
    """Names of the layers of a vector file that may hold polygons, in the file's order.

    Raises:
        UserError: the file is missing or unreadable.
    """
    if not is_remote(uri) and not os.path.exists(gdal_path(uri)):
        raise UserError(f"{uri}: no such file. Expected a vector file of polygons; check the path.")
    try:
        with gdal_env(uri):
            listed = pyogrio.list_layers(gdal_path(uri))
    except (DataSourceError, OSError, ValueError) as error:
        raise _unreadable(uri, error) from error
    return [str(name) for name, kind in listed if kind and str(kind).removesuffix(" Z").split(" ")[-1] in _POLYGONS]


def attribute_value(value: object) -> str:
    """An attribute's value as it is compared with names and ids of classes: lower case, whole numbers without point."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return NO_VALUE
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().lower()


@lru_cache(maxsize=8)
def _read(uri: str, crs: str | None, layer: str, version: tuple[int, int]) -> gpd.GeoDataFrame:
    name = _layer(uri, layer)
    try:
        with gdal_env(uri):
            frame = read_frame(gdal_path(uri), layer=name)
    except (DataSourceError, DataLayerError, OSError, ValueError) as error:
        raise _unreadable(uri, error) from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise UserError(f"{uri}: has no geometries. Expected polygons.")
    frame = frame[frame.geometry.notna() & ~frame.geometry.is_empty]
    found = sorted(set(frame.geom_type) - {"Polygon", "MultiPolygon", "GeometryCollection"})
    if found:
        raise UserError(f"{uri}: holds {', '.join(found)}. Expected polygons only; widen points and lines to areas.")
    if not len(frame):
        return frame if frame.crs is None or crs is None else frame.to_crs(horizontal(crs))
    if (frame.crs is None) != (crs is None):
        theirs = crs_name(frame.crs.to_wkt()) if frame.crs is not None else "none"
        raise UserError(
            f"{uri}: has CRS {theirs}, the image has CRS {crs_name(crs)}; their places cannot be compared. "
            "Georeference the one that lacks it."
        )
    frame = frame.set_geometry(make_valid(frame.geometry.values))
    return frame if crs is None else frame.to_crs(horizontal(crs))


def _layer(uri: str, name: str) -> str | None:
    """The layer to read; None for the only one."""
    layers = polygon_layers(uri)
    if name and name not in layers:
        raise UserError(f"{uri}: no polygon layer {name!r} (data.label.layer); it has {', '.join(layers) or 'none'}.")
    if not name and len(layers) > 1:
        raise UserError(
            f"{uri}: has {len(layers)} layers of polygons: {', '.join(layers)}. Expected to know which of them are the "
            "labels; name it with data.label.layer."
        )
    return name or (layers[0] if layers else None)


def _unreadable(uri: str, error: Exception) -> UserError:
    return UserError(
        f"{uri}: cannot be read as a vector file ({error}). Expected GeoPackage, GeoJSON, Shapefile or a file "
        "geodatabase."
    )


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


def attribute_values(uri: str, layer: str = "") -> dict[str, dict[str, int]]:
    """What the attributes of a polygon layer hold: name -> value (see `attribute_value`) -> how many polygons have it.

    Raises:
        UserError: as `read_polygons`.
    """
    name = _layer(uri, layer)
    try:
        with gdal_env(uri):
            table = pyogrio.read_dataframe(gdal_path(uri), layer=name, read_geometry=False)
    except (DataSourceError, DataLayerError, OSError, ValueError) as error:
        raise _unreadable(uri, error) from error
    return {str(column): dict(Counter(map(attribute_value, table[column]))) for column in table.columns}
