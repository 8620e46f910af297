"""Polygons from a vector file, brought to a raster's coordinates and burnt onto its pixels."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import rasterio.features
import shapely
from pyarrow import ArrowException
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import Transformer
from pyproj.exceptions import ProjError
from shapely import make_valid

from idgbr.errors import UserError
from idgbr.raster.crs import crs_name, horizontal
from idgbr.raster.foreign import foreign
from idgbr.raster.frames import is_parquet, read_frame
from idgbr.raster.gdal import gdal_env, gdal_path, is_remote, version_of
from idgbr.raster.grid import Grid

_DEGREES = 360.0
"""Largest coordinate in degrees."""
_QUARTER = 90.0
"""Degrees that a polygon may span to be projected by its vertices."""
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
            only one of file and grid has a CRS, or polygons on the grid cannot be brought into its CRS.
    """
    found = _read(uri, grid.crs, layer, version_of(uri))
    if found.crs is not None and grid.crs is not None:
        _refuse_misplaced(uri, found, grid)
    return found.frame


def polygon_layers(uri: str) -> list[str]:
    """Names of the layers of a vector file that may hold polygons, in the file's order.

    Raises:
        UserError: the file is missing or unreadable.
    """
    if not is_remote(uri) and not os.path.exists(gdal_path(uri)):
        raise UserError(f"{uri}: no such file. Expected a vector file of polygons; check the path.")
    if is_parquet(uri):
        return [PurePath(uri).stem]
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


@dataclass(frozen=True)
class _Polygons:
    """Polygons in the raster's CRS, and what is known of them in their own.

    Attributes:
        frame: polygons in the raster's CRS.
        crs: their own CRS.
        bounds: of all of them, in their own CRS.
        lost: those that reach beyond the domain of the raster's CRS, in their own.
    """

    frame: gpd.GeoDataFrame
    crs: pyproj.CRS | None
    bounds: tuple[float, float, float, float]
    lost: gpd.GeoSeries


@lru_cache(maxsize=8)
def _read(uri: str, crs: str | None, layer: str, version: tuple[int, int]) -> _Polygons:
    name = _layer(uri, layer)
    try:
        with gdal_env(uri):
            frame = read_frame(gdal_path(uri), layer=name)
    except (DataSourceError, DataLayerError, OSError, ValueError, ArrowException) as error:
        raise _unreadable(uri, error) from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise UserError(f"{uri}: has no geometries. Expected polygons.")
    shapes = frame.geometry.values
    frame = frame[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    parts = shapely.get_parts(shapely.get_parts(frame.geometry.values))
    found = sorted({part.geom_type for part in parts} - {"Polygon", "MultiPolygon", "GeometryCollection"})
    if found:
        raise UserError(f"{uri}: holds {', '.join(found)}. Expected polygons only; widen points and lines to areas.")
    none = frame.geometry.iloc[:0]
    if not len(frame):
        placed = frame if frame.crs is None or crs is None else frame.to_crs(horizontal(crs))
        return _Polygons(placed, None, (0.0, 0.0, 0.0, 0.0), none)
    if (frame.crs is None) != (crs is None):
        theirs = crs_name(frame.crs.to_wkt()) if frame.crs is not None else "none"
        raise UserError(
            f"{uri}: has CRS {theirs}, the image has CRS {crs_name(crs)}; their places cannot be compared. "
            "Georeference the one that lacks it (ogr2ogr -a_srs EPSG:..., gdal_edit -a_srs EPSG:...; a Shapefile has "
            "its CRS in a .prj file)."
        )
    bounds = tuple(frame.total_bounds.tolist())
    if frame.crs is not None and frame.crs.is_geographic and max(map(abs, bounds)) > _DEGREES:
        raise UserError(
            f"{uri}: its coordinates reach from {bounds[0]:.6g}, {bounds[1]:.6g} to {bounds[2]:.6g}, {bounds[3]:.6g}, "
            f"but its CRS {crs_name(frame.crs.to_wkt())} has degrees, as a GeoJSON has that names none. Expected the "
            "CRS of these coordinates; assign it (ogr2ogr -a_srs EPSG:... out.gpkg FILE)."
        )
    frame = frame.set_geometry(_areas(make_valid(frame.geometry.values)))
    if crs is None or frame.crs is None:
        return _Polygons(frame, None, bounds, none)
    try:
        placed = frame.to_crs(horizontal(crs))
    except ProjError as error:
        raise UserError(
            f"{uri}: cannot be brought from CRS {crs_name(frame.crs.to_wkt())} into the image's, {crs_name(crs)}, "
            "which may be local. Expected both in one CRS."
        ) from error
    kept = np.isfinite(placed.geometry.bounds.to_numpy()).all(axis=1)
    if frame.crs.is_geographic and not pyproj.CRS.from_wkt(horizontal(crs)).is_geographic:
        sides = frame.geometry.bounds.to_numpy()
        kept &= (sides[:, 2:] - sides[:, :2]).max(axis=1) < _QUARTER  # projected, a box round the world is a line
    return _Polygons(placed[kept], frame.crs, bounds, frame.geometry[~kept])


def _areas(shapes: np.ndarray) -> np.ndarray:
    """Shapes without the lines and points that repairing leaves beside areas."""
    mixed = shapely.get_type_id(shapes) == shapely.GeometryType.GEOMETRYCOLLECTION
    out = np.array(shapes, object)
    for i in np.flatnonzero(mixed):
        parts = shapely.get_parts(shapely.get_parts(out[i]))
        out[i] = shapely.union_all(parts[shapely.get_dimensions(parts) == 2])
    return out


def _refuse_misplaced(uri: str, found: _Polygons, grid: Grid) -> None:
    """Refuses polygons on the grid that its CRS cannot hold, and such as lie on it once x and y are swapped."""
    assert found.crs is not None and grid.crs is not None
    if len(found.lost) == 0 and shapely.box(*grid.bounds).intersects(shapely.box(*found.frame.total_bounds)):
        return
    try:
        back = Transformer.from_crs(horizontal(grid.crs), found.crs, always_xy=True)
        image = shapely.box(*back.transform_bounds(*grid.bounds))
    except ProjError:
        return
    if count := int(found.lost.intersects(image).sum()):
        raise UserError(
            f"{uri}: {count} polygon(s) on the image reach beyond what its CRS {crs_name(grid.crs)} can hold. Expected "
            "polygons of the area; cut them to it first (ogr2ogr -clipsrc)."
        )
    left, bottom, right, top = found.bounds
    swapped = shapely.box(bottom, left, top, right)
    if len(found.lost) == 0 and not shapely.box(*found.bounds).intersects(image) and swapped.intersects(image):
        raise UserError(
            f"{uri}: lies on the image once x and y of its coordinates are swapped. Expected longitude (or easting) "
            "first; swap them (QGIS: Swap X and Y coordinates; PostGIS and SpatiaLite: ST_SwapCoordinates)."
        )


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
    if what := foreign(gdal_path(uri)):
        return UserError(f"{uri}: {what}. Expected a vector file of polygons.")
    words = str(error).partition("; It might help")[0]  # naming a driver is nothing that a user can do here
    return UserError(
        f"{uri}: cannot be read as a vector file ({words}). Expected GeoPackage, GeoJSON, Shapefile, a file "
        "geodatabase, FlatGeobuf or GeoParquet."
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
            if is_parquet(uri):
                frame = read_frame(gdal_path(uri))
                table = frame.drop(columns=frame.geometry.name)
            else:
                table = pyogrio.read_dataframe(gdal_path(uri), layer=name, read_geometry=False)
    except (DataSourceError, DataLayerError, OSError, ValueError, ArrowException) as error:
        raise _unreadable(uri, error) from error
    return {str(column): dict(Counter(map(attribute_value, table[column]))) for column in table.columns}
