"""Polygons of a class map: shared edges, no slivers, in a format that other tools open."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Self

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import rasterio.features
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError

from idgbr import IGNORE
from idgbr.errors import UserError
from idgbr.raster.gdal import gdal_env
from idgbr.raster.grid import Grid, Window
from idgbr.raster.regions import OUTSIDE, TILE, Regions, corners
from idgbr.raster.scene import Scene

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON"}

LARGEST = 250_000
"""Vertices of the largest polygon."""
_BATCH = 200_000
"""Vertices after which polygons are handed on."""
_IN_MEMORY = 16 * 2**20
"""Bytes of unfinished polygons from which they lie on disk."""


def polygonise(
    raster_path: str,
    out_path: str | os.PathLike[str],
    classes: Sequence[tuple[int, str, str]],
    min_area_m2: float,
    tile: int = TILE,
) -> int:
    """Writes the polygons of a class map of any size.

    Neighbouring polygons share their edges vertex by vertex, so that nothing overlaps and nothing gapes. Areas below
    the minimum join their largest neighbour, or go where all round is nodata; specks of nodata below it leave no
    holes. Memory is a tile and a few bytes per area; what goes on in other tiles waits in a temporary file beside the
    result, which takes no more disk than the result itself. An area with more than `LARGEST` vertices, such as the
    ground between all houses of a town, stays cut along the lines between tiles.

    Args:
        raster_path: class ids in band 1.
        out_path: .gpkg, in the map's CRS; or .geojson, in longitude and latitude where the map is georeferenced.
        classes: (id, name, colour as #rrggbb) of each class.
        min_area_m2: smallest polygon in square metres; in pixels where the map has no ground sample distance.
        tile: side of what is held in memory, in pixels; but for what stays cut, the polygons do not depend on it.

    Returns:
        How many polygons were written.

    Raises:
        UserError: the map cannot be read, or the output not written.
    """
    path = os.fspath(out_path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in DRIVERS:
        raise UserError(f"{out_path}: unknown vector format {suffix!r}. Expected one of {', '.join(DRIVERS)}.")
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
        frames = _frames(read, scene.grid(), classes, min_area_m2, tile, folder)
        count = _write(map(in_degrees, frames) if suffix == ".geojson" else frames, part, DRIVERS[suffix])
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
    ids: NDArray[np.uint8], grid: Grid, classes: Sequence[tuple[int, str, str]], min_area_m2: float
) -> gpd.GeoDataFrame:
    """The polygons of a class map in memory, (H, W) uint8 with 255 as nodata; see `polygonise`.

    Returns:
        class_id, class, colour, area_m2 (area_px where the grid has no ground sample distance) and geometry, in the
        grid's CRS.
    """
    frames = list(_frames(lambda window: ids[window.slices()], grid, classes, min_area_m2, TILE, None))
    return pd.concat(frames, ignore_index=True)


def in_degrees(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Longitude and latitude, as GeoJSON wants them; a frame without a CRS stays as it is."""
    if frame.crs is None:
        return frame
    return frame.to_crs("OGC:CRS84").set_crs("EPSG:4326", allow_override=True)


def _frames(
    read: Callable[[Window], NDArray[np.uint8]],
    grid: Grid,
    classes: Sequence[tuple[int, str, str]],
    min_area_m2: float,
    tile: int,
    folder: str | None,
) -> Iterator[gpd.GeoDataFrame]:
    """The polygons in frames of some thousand vertices, some of them empty; one at least."""
    pixel_area = (grid.gsd or 1.0) ** 2
    regions = Regions(read, grid.height, grid.width, min_area_m2 / pixel_area, tile)
    names = {i: (name, colour) for i, name, colour in classes}
    a, b, c, d, e, f = grid.transform
    for numbers, polygons in _polygons(regions, folder):
        ids = regions.classes[numbers]
        columns = {
            "class_id": ids.astype(np.int64),
            "class": pd.array([names.get(i, (str(i), ""))[0] for i in ids], dtype=str),
            "colour": pd.array([names.get(i, ("", ""))[1] for i in ids], dtype=str),
            "area_m2" if grid.gsd else "area_px": np.round(shapely.area(polygons) * pixel_area, 3),
        }
        placed = shapely.transform(polygons, lambda xy: np.stack([xy @ (a, b) + c, xy @ (d, e) + f], axis=1))
        yield gpd.GeoDataFrame(columns, geometry=placed, crs=grid.crs)


def _polygons(regions: Regions, folder: str | None) -> Iterator[tuple[NDArray[np.int64], NDArray[np.object_]]]:
    """Region numbers and polygons, in pixels: tile by tile those that lie in one, then those that lie in several."""
    with _Pieces(folder) as pieces:
        for window, numbers in regions.tiles():
            of_region, polygons = _outlines(regions, window, numbers)
            left, top, right, bottom = shapely.bounds(polygons).T
            goes_on = (left == window.col) & (window.col > 0) | (top == window.row) & (window.row > 0)
            goes_on |= (right == window.stop_col) & (right < regions.width)
            goes_on |= (bottom == window.stop_row) & (bottom < regions.height)
            pieces.add(of_region[goes_on], polygons[goes_on])
            yield of_region[~goes_on], polygons[~goes_on]
        large = pieces.larger_than(LARGEST)
        regions.cut(large)
        batch: list[tuple[int, NDArray[np.object_]]] = []
        vertices = 0
        for number, parts in pieces.by_region(large):
            whole = parts if number in large else _joined(parts, regions)
            batch.append((number, whole))
            vertices += int(shapely.get_num_coordinates(whole).sum())
            if vertices > _BATCH:
                yield _stacked(batch)
                batch, vertices = [], 0
        if batch:
            yield _stacked(batch)


def _joined(pieces: NDArray[np.object_], regions: Regions) -> NDArray[np.object_]:
    """The pieces of a region without the borders between them."""
    parts = shapely.get_parts(shapely.coverage_union_all(pieces))
    return _thinned(parts, lambda row, col: regions.turns(row, col, np.ones(row.shape, bool)))


def _stacked(batch: Sequence[tuple[int, NDArray[np.object_]]]) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    numbers = np.repeat([number for number, _ in batch], [len(parts) for _, parts in batch])
    return numbers, np.concatenate([parts for _, parts in batch])


def _outlines(
    regions: Regions, window: Window, numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """What lies of each region in a tile, with a vertex wherever a neighbour has one, in this tile or beyond."""
    found = list(rasterio.features.shapes(numbers.astype(np.int32), mask=numbers != OUTSIDE, connectivity=4))
    of_region = np.array([int(number) for _, number in found], np.int64)
    polygons = np.array([shapely.geometry.shape(geometry) for geometry, _ in found], object)
    here = corners(np.pad(numbers, 1, constant_values=OUTSIDE - 1))

    def needed(row: NDArray[np.int64], col: NDArray[np.int64]) -> NDArray[np.bool_]:
        within = here[row - window.row, col - window.col]
        return within | regions.turns(row, col, within)

    moved = shapely.transform(polygons, lambda xy: xy + np.array([window.col, window.row]))
    return of_region, _thinned(shapely.segmentize(moved, 1.0), needed)


def _thinned(
    polygons: NDArray[np.object_], needed: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
) -> NDArray[np.object_]:
    """Polygons without the vertices that are not needed, which says a function of pixel corners' rows and columns."""
    if polygons.size == 0:
        return polygons
    _, vertices, (rings, parts) = shapely.to_ragged_array(polygons)
    at = np.rint(vertices).astype(np.int64)
    keep = needed(at[:, 1], at[:, 0])
    keep[rings[1:] - 1] = False  # a ring's last vertex is its first
    kept = np.flatnonzero(keep)
    counts = np.add.reduceat(keep, rings[:-1], dtype=np.int64)
    ends = np.cumsum(counts)
    closed = np.insert(kept, ends, kept[ends - counts])
    offsets = np.concatenate([[0], np.cumsum(counts + 1)])
    thin = shapely.from_ragged_array(shapely.GeometryType.POLYGON, at[closed].astype(float), (offsets, parts))
    broken = ~shapely.is_valid(thin)  # rings that touch themselves at a corner
    thin[broken] = shapely.make_valid(thin[broken])
    return thin


class _Pieces:
    """Polygons of regions that lie in several tiles, in a temporary file until all tiles have been seen."""

    def __init__(self, folder: str | None) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=folder)  # noqa: SIM115
        self._numbers: list[NDArray[np.int64]] = []
        self._sizes: list[NDArray[np.int64]] = []
        self._vertices: list[NDArray[np.int64]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, numbers: NDArray[np.int64], polygons: NDArray[np.object_]) -> None:
        blobs = shapely.to_wkb(polygons)
        self._file.write(b"".join(blobs))
        self._numbers.append(numbers)
        self._sizes.append(np.array([len(blob) for blob in blobs], np.int64))
        self._vertices.append(shapely.get_num_coordinates(polygons))

    def larger_than(self, vertices: int) -> NDArray[np.int64]:
        """Numbers of the regions whose pieces have more vertices than this together."""
        numbers, index = np.unique(np.concatenate(self._numbers), return_inverse=True)
        return numbers[np.bincount(index, np.concatenate(self._vertices), numbers.size) > vertices]

    def by_region(self, apart: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.object_]]]:
        """Each region's number and its pieces; those of the regions `apart` one by one."""
        numbers, sizes = np.concatenate(self._numbers), np.concatenate(self._sizes)
        starts = np.cumsum(sizes) - sizes
        order = np.argsort(numbers, kind="stable").tolist()
        alone = np.isin(numbers, apart)
        for (number, _), group in groupby(order, key=lambda i: (int(numbers[i]), alone[i] and i)):
            yield number, shapely.from_wkb([self._at(starts[i], sizes[i]) for i in group])

    def _at(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size)


def _write(frames: Iterator[gpd.GeoDataFrame], path: str, driver: str) -> int:
    """Streams frames into a file, and counts what it holds then."""
    first = next(frames)
    table = pa.table(first.to_arrow(index=False))
    failure: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from table.to_batches()
            for frame in frames:
                yield from pa.table(frame.to_arrow(index=False)).cast(table.schema).to_batches()
        except Exception as error:  # GDAL, which pulls, would tell its text only
            failure.append(error)
            raise

    options = {"COORDINATE_PRECISION": "10"} if driver == "GeoJSON" else {}
    with gdal_env(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")  # a map without a CRS is welcome
        try:
            pyogrio.write_arrow(
                pa.RecordBatchReader.from_batches(table.schema, batches()),
                path,
                layer="classes",
                driver=driver,
                geometry_type="Polygon",
                crs=None if first.crs is None else first.crs.to_wkt(),
                **options,
            )
        except Exception:
            if failure:
                raise failure[0] from None
            raise
        return int(pyogrio.read_info(path, force_feature_count=True)["features"])
