"""Polygons of a class map: shared edges, no slivers, in a format that other tools open."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError

from idgbr import IGNORE
from idgbr.errors import UserError
from idgbr.raster.gdal import open_quietly
from idgbr.raster.grid import Grid, Window
from idgbr.raster.outlines import Style, outlines
from idgbr.raster.regions import OUTSIDE, TILE, Regions
from idgbr.raster.scene import Scene
from idgbr.raster.styles import qgis_style
from idgbr.raster.vector_files import DRIVERS, write_frames, write_layer_style

MEANS = ("probability", "uncertainty")
"""Bands of a map, 0..254 for 0..1, of which polygons carry the mean."""
_FULL_SCALE = 254

Classes = Sequence[tuple[int, str, str]]
"""(id, name, colour as #rrggbb) of each class."""


@dataclass(frozen=True)
class PolygonOptions:
    """How polygons differ from a map's pixels. Lengths are in metres, or in pixels where the map has no scale.

    Attributes:
        min_area: Smallest polygon in square metres; smaller ones join their largest neighbour.
        simplify: What an edge may move by, about: vertices go that stand for no more than a triangle of this height
            and eight times as wide. 0 keeps the pixels' edges.
        regularise: Names of classes whose polygons get right angles along their main direction.
    """

    min_area: float = 0.0
    simplify: float = 0.0
    regularise: tuple[str, ...] = ()

    def ids(self, classes: Classes) -> frozenset[int]:
        """Ids of the classes to regularise.

        Raises:
            UserError: There is no class of that name.
        """
        by_name = {name: i for i, name, _ in classes}
        for name in self.regularise:
            if name not in by_name:
                raise UserError(f"regularise: unknown class {name!r}. Expected one of {', '.join(by_name)}.")
        return frozenset(by_name[name] for name in self.regularise)


AS_PIXELS = PolygonOptions()
"""Polygons along the pixels' edges."""


def polygonise(
    raster_path: str,
    out_path: str | os.PathLike[str],
    classes: Classes,
    options: PolygonOptions,
    tile: int = TILE,
) -> int:
    """Writes the polygons of a class map of any size.

    Neighbouring polygons share their edges vertex by vertex, so that nothing overlaps and nothing gapes. Areas below
    the minimum join their largest neighbour, or go where all round is nodata; specks of nodata below it leave no
    holes. Memory is a tile, a few bytes per area and the footprints that are regularised; what goes on in other tiles
    waits in a temporary file beside the result, which takes no more disk than the result itself. An area with more
    than `outlines.LARGEST` vertices, such as the ground between all houses of a town, stays cut along the lines
    between tiles. Simplifying leaves the edge of the map and the points alone where an edge crosses such a line.

    Args:
        raster_path: class ids in band 1; bands named as in `MEANS` become columns of means.
        out_path: .gpkg, .fgb or .parquet, in the map's CRS; or .geojson, in longitude and latitude where the map is
            georeferenced.
        classes: (id, name, colour as #rrggbb) of each class.
        options: smallest area, simplification, right angles.
        tile: side of what is held in memory, in pixels. Without simplification and right angles the polygons do not
            depend on it, but for what stays cut.

    Returns:
        How many polygons were written.

    Raises:
        UserError: the map cannot be read, the output not written, or a class does not exist.
    """
    path = os.fspath(out_path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in DRIVERS:
        raise UserError(f"{out_path}: unknown vector format {suffix!r}. Expected one of {', '.join(DRIVERS)}.")
    options.ids(classes)
    scene = Scene(raster_path, bands=(1,))

    def read(window: Window) -> NDArray[np.uint8]:
        pixels, valid = scene.read(window)
        return np.where(valid, pixels[0], IGNORE).astype(np.uint8)

    parent = os.path.dirname(os.path.abspath(path))
    folder = ""
    try:
        os.makedirs(parent, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f".{os.path.basename(path)}.", dir=parent)
        part = os.path.join(folder, os.path.basename(path))
        frames = _frames(read, scene.grid(), classes, options, tile, folder, _planes(raster_path))
        count = write_frames(map(in_degrees, frames) if suffix == ".geojson" else frames, part, DRIVERS[suffix])
        if suffix == ".gpkg":
            write_layer_style(part, qgis_style(classes))
        os.replace(part, path)
    except (DataSourceError, OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: polygons cannot be written ({' '.join(str(error).split())[:300]}). Check free disk space and "
            "permissions, or name another output."
        ) from error
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
    return count


def class_polygons(
    ids: NDArray[np.uint8],
    grid: Grid,
    classes: Classes,
    options: PolygonOptions,
    planes: dict[str, NDArray[np.uint8]] | None = None,
) -> gpd.GeoDataFrame:
    """The polygons of a class map in memory; see `polygonise`.

    Args:
        ids: (H, W) uint8 class ids, 255 is nodata.
        grid: Its georeference.
        classes: (id, name, colour as #rrggbb) of each class.
        options: Smallest area, simplification, right angles.
        planes: (H, W) 0..254 for 0..1 by name, of which polygons carry the mean.

    Returns:
        class_id, class, colour, area_m2 (area_px where the grid has no ground sample distance), a column for each
        plane, and geometry, in the grid's CRS.

    Raises:
        UserError: a class to regularise does not exist.
    """
    readers = {name: _cropped(plane) for name, plane in (planes or {}).items()}
    frames = list(_frames(_cropped(ids), grid, classes, options, TILE, None, readers))
    return pd.concat(frames, ignore_index=True)


def in_degrees(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Longitude and latitude, as GeoJSON wants them; a frame without a CRS stays as it is."""
    if frame.crs is None:
        return frame
    return frame.to_crs("OGC:CRS84").set_crs("EPSG:4326", allow_override=True)


def _cropped(plane: NDArray[np.uint8]) -> Callable[[Window], NDArray[np.uint8]]:
    return lambda window: plane[window.slices()]


def _planes(raster_path: str) -> dict[str, Callable[[Window], NDArray[np.uint8]]]:
    """A reader for each band of which polygons carry the mean."""
    with open_quietly(raster_path) as dataset:
        names = dataset.descriptions
    scenes = {name: Scene(raster_path, bands=(names.index(name) + 1,)) for name in MEANS if name in names}
    return {name: functools.partial(_band, scene) for name, scene in scenes.items()}


def _band(scene: Scene, window: Window) -> NDArray[np.uint8]:
    return scene.read(window)[0][0]


def _frames(
    read: Callable[[Window], NDArray[np.uint8]],
    grid: Grid,
    classes: Classes,
    options: PolygonOptions,
    tile: int,
    folder: str | None,
    planes: dict[str, Callable[[Window], NDArray[np.uint8]]],
) -> Iterator[gpd.GeoDataFrame]:
    """The polygons in frames of some thousand vertices, some of them empty; one at least."""
    pixel_area = (grid.gsd or 1.0) ** 2
    regions = Regions(read, grid.height, grid.width, options.min_area / pixel_area, tile)
    means = _means(regions, planes) if planes else {}
    style = Style(grid.pixel_vectors, options.simplify, options.ids(classes))
    names = {i: (name, colour) for i, name, colour in classes}
    a, b, c, d, e, f = grid.transform
    for numbers, polygons in outlines(regions, style, folder):
        ids = regions.classes[numbers]
        columns = {
            "class_id": ids.astype(np.int64),
            "class": pd.array([names.get(i, (str(i), ""))[0] for i in ids], dtype=str),
            "colour": pd.array([names.get(i, ("", ""))[1] for i in ids], dtype=str),
            "area_m2" if grid.gsd else "area_px": np.round(shapely.area(polygons) * pixel_area, 3),
            **{name: values[numbers] for name, values in means.items()},
        }
        placed = shapely.transform(polygons, lambda xy: np.stack([xy @ (a, b) + c, xy @ (d, e) + f], axis=1))
        yield gpd.GeoDataFrame(columns, geometry=placed, crs=grid.crs)


def _means(
    regions: Regions, planes: dict[str, Callable[[Window], NDArray[np.uint8]]]
) -> dict[str, NDArray[np.float64]]:
    """Mean of each plane over each region's pixels, 0 to 1; pixels that the plane lacks do not count."""
    sums = {name: np.zeros((2, regions.classes.size)) for name in planes}
    for window, numbers in regions.tiles():
        for name, plane in planes.items():
            values = plane(window)
            counted = (numbers != OUTSIDE) & (values != IGNORE)
            for total, weights in zip(sums[name], (values[counted], None), strict=True):
                total += np.bincount(numbers[counted], weights, regions.classes.size)
    return {
        name: np.round(np.divide(total, count * _FULL_SCALE, out=np.full(total.size, np.nan), where=count > 0), 4)
        for name, (total, count) in sums.items()
    }
