"""Polygons of a class map: shared edges, no slivers, in a format that other tools open."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Collection, Sequence

import geopandas as gpd
import numpy as np
import rasterio.features
import shapely
from pyogrio.errors import DataSourceError

from idgbr import IGNORE
from idgbr.errors import UserError
from idgbr.raster.gdal import gdal_env
from idgbr.raster.grid import Grid
from idgbr.raster.scene import Scene

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON"}

_SIEVE_PASSES = 8


def polygonise(
    raster_path: str,
    out_path: str | os.PathLike[str],
    classes: Sequence[tuple[int, str, str]],
    min_area_m2: float,
    simplify: float = 0.0,
    drop: Collection[int] = (),
) -> int:
    """Writes the polygons of a class map.

    Neighbouring polygons share their edges vertex by vertex, before and after simplification, so that nothing
    overlaps and nothing gapes. Areas below the minimum join their largest neighbour, or go where all round is
    nodata; specks of nodata below it leave no holes. The map is held in memory, a byte a pixel.

    Args:
        raster_path: class ids in band 1.
        out_path: .gpkg, in the map's CRS; or .geojson, in longitude and latitude where the map is georeferenced.
        classes: (id, name, colour as #rrggbb) of each class.
        min_area_m2: smallest polygon in square metres, before simplification; in pixels where the map has no
            ground sample distance.
        simplify: tolerance of the simplification in pixels (area of a triangle taken off is at most its square); 0
            keeps every corner.
        drop: ids of which no polygons are wanted, such as a background.

    Returns:
        How many polygons were written.

    Raises:
        UserError: the map cannot be read, or the output not written.
    """
    suffix = os.path.splitext(os.fspath(out_path))[1].lower()
    if suffix not in DRIVERS:
        raise UserError(f"{out_path}: unknown vector format {suffix!r}. Expected one of {', '.join(DRIVERS)}.")
    scene = Scene(raster_path, bands=(1,))
    grid = scene.grid()
    pixels, valid = scene.read(grid.window)
    ids = np.where(valid, pixels[0], IGNORE).astype(np.uint8)
    frame = class_polygons(ids, grid, classes, min_area_m2, simplify, drop)
    if suffix == ".geojson":
        frame = in_degrees(frame)
    _write(frame, os.fspath(out_path), DRIVERS[suffix])
    return len(frame)


def class_polygons(
    ids: np.ndarray,
    grid: Grid,
    classes: Sequence[tuple[int, str, str]],
    min_area_m2: float,
    simplify: float = 0.0,
    drop: Collection[int] = (),
) -> gpd.GeoDataFrame:
    """The polygons of a class map in memory, (H, W) uint8 with 255 as nodata; see `polygonise`.

    Returns:
        class_id, class, colour, area_m2 (area_px where the grid has no ground sample distance) and geometry, in the
        grid's CRS.
    """
    pixel_area = (grid.gsd or 1.0) ** 2
    least = min_area_m2 / pixel_area
    return _frame(_sieved(ids, least), grid, classes, simplify, set(drop), least, pixel_area)


def in_degrees(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Longitude and latitude, as GeoJSON wants them; a frame without a CRS stays as it is."""
    if frame.crs is None:
        return frame
    return frame.to_crs("OGC:CRS84").set_crs("EPSG:4326", allow_override=True)


def _sieved(ids: np.ndarray, least: float) -> np.ndarray:
    """Areas and holes of fewer than `least` pixels joined to their neighbours; areas amid nodata stay."""
    valid = ids != IGNORE
    for size in _sizes(int(np.ceil(least))):
        for _ in range(_SIEVE_PASSES):
            merged = rasterio.features.sieve(ids, size=size, mask=valid, connectivity=4)
            merged[~valid] = IGNORE
            if (merged == ids).all():
                break
            ids = merged
    filled = rasterio.features.sieve(ids, size=int(np.ceil(least)), connectivity=4) if least > 1 else ids
    return np.where(valid, ids, filled)


def _sizes(least: int) -> list[int]:
    """Growing sizes up to `least`: GDAL joins a small area to a big neighbour only, so the big ones are grown first."""
    sizes = [2]
    while sizes[-1] < least:
        sizes.append(sizes[-1] * 2)
    return [min(size, least) for size in sizes] if least > 1 else []


def _frame(
    ids: np.ndarray,
    grid: Grid,
    classes: Sequence[tuple[int, str, str]],
    simplify: float,
    drop: set[int],
    least: float,
    pixel_area: float,
) -> gpd.GeoDataFrame:
    found = list(rasterio.features.shapes(ids, mask=ids != IGNORE, connectivity=4))
    polygons = np.array([shapely.geometry.shape(geometry) for geometry, _ in found], dtype=object)
    values = np.array([int(value) for _, value in found], dtype=int)
    polygons, values = _coverage(polygons, values, simplify, least)
    keep = ~np.isin(values, list(drop))
    polygons, values = polygons[keep], values[keep]
    areas = shapely.area(polygons) * pixel_area
    a, b, c, d, e, f = grid.transform
    placed = shapely.transform(polygons, lambda xy: np.stack([xy @ (a, b) + c, xy @ (d, e) + f], axis=1))
    names = {i: (name, colour) for i, name, colour in classes}
    columns = {
        "class_id": values,
        "class": [names.get(v, (str(v), ""))[0] for v in values],
        "colour": [names.get(v, ("", ""))[1] for v in values],
        "area_m2" if grid.gsd else "area_px": np.round(areas, 3),
    }
    return gpd.GeoDataFrame(columns, geometry=placed, crs=grid.crs)


def _coverage(polygons: np.ndarray, values: np.ndarray, simplify: float, least: float) -> tuple[np.ndarray, np.ndarray]:
    """A noded coverage in pixel coordinates: where three polygons meet, all three have a vertex.

    Polygons cut from a raster lack vertices where a straight edge has two neighbours; cut to pixel edges and merged
    again jointly, only the corners that neither side needs go.
    """
    big = shapely.area(polygons) >= least - 1e-6  # what has no neighbour to join
    polygons, values = polygons[big], values[big]
    if polygons.size == 0:
        return polygons, values
    valid = shapely.is_valid(polygons)
    if not valid.all():  # rings that touch themselves at a corner
        polygons[~valid] = shapely.make_valid(polygons[~valid])
    dense = shapely.transform(shapely.segmentize(polygons, 1.0), np.rint)
    smooth = shapely.coverage_simplify(dense, simplify)
    parts, index = shapely.get_parts(smooth, return_index=True)
    return parts, values[index]


def _write(frame: gpd.GeoDataFrame, path: str, driver: str) -> None:
    """Through a hidden folder beside the result, then renamed."""
    parent = os.path.dirname(os.path.abspath(path))
    folder = ""
    try:
        os.makedirs(parent, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f".{os.path.basename(path)}.", dir=parent)
        part = os.path.join(folder, os.path.basename(path))
        options = {"COORDINATE_PRECISION": 10} if driver == "GeoJSON" else {}
        with gdal_env(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # a map without a CRS is welcome
            frame.to_file(part, driver=driver, engine="pyogrio", layer="classes", geometry_type="Polygon", **options)
            if len(gpd.read_file(part, engine="pyogrio", ignore_geometry=True)) != len(frame):
                raise OSError("features are missing at the end of the file")
        os.replace(part, path)
    except (DataSourceError, OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: polygons cannot be written ({' '.join(str(error).split())[:300]}). Check free disk space and "
            "permissions, or name another output."
        ) from error
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
