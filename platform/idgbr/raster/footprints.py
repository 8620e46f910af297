"""Footprints with right angles, laid over the outlines of a tile: nothing overlaps and nothing gapes afterwards."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import shapely
from numpy.typing import NDArray

from idgbr.raster.grid import Window
from idgbr.raster.regions import OUTSIDE

_GRID = 4096
"""Vertices of footprints lie on a grid of so many lines a pixel."""
_SLIVER = 2.0
"""Pixels below which what a footprint leaves of a neighbour joins the next one."""
_COLLINEAR = 0.01
"""Square root of the pixels below which a vertex stands for no corner."""
_FREE = OUTSIDE - 1
"""Number of what belonged to a footprint before and has no region yet."""

Numbers = NDArray[np.int64]
Polygons = NDArray[np.object_]


class Footprints:
    """Outlines that replace those of their regions, in pixels of the map.

    Memory is the footprints themselves, some hundred bytes each.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        tile: Side of a tile: an outline has a vertex where it crosses from one to the next.
    """

    def __init__(self, height: int, width: int, tile: int) -> None:
        self._map, self._tile = shapely.box(0, 0, width, height), tile
        self._numbers: Numbers = np.zeros(0, np.int64)
        self._added: list[tuple[int, shapely.Polygon]] = []

    def add(self, number: int, polygon: shapely.Polygon) -> None:
        """A footprint of a region; what lies outside of the map goes."""
        if not self._map.contains(polygon):
            polygon = polygon.intersection(self._map)
        on_grid = shapely.transform(polygon, lambda xy: np.rint(xy * _GRID) / _GRID)
        if on_grid.geom_type == "Polygon" and on_grid.is_valid:
            self._added.append((number, on_grid))

    def settle(self) -> None:
        """All are there: those that overlap a larger one go."""
        self._added.sort(key=lambda added: (-added[1].area, added[0]))
        polygons = np.array([polygon for _, polygon in self._added], object)
        numbers = np.array([number for number, _ in self._added], np.int64)
        one, other = shapely.STRtree(polygons).query(polygons, predicate="intersects")
        pairs = np.stack([one, other])[:, one < other]
        pairs = pairs[:, shapely.area(shapely.intersection(polygons[pairs[0]], polygons[pairs[1]])) > 0]
        stays = np.ones(len(polygons), bool)
        for larger, smaller in sorted(zip(*pairs.tolist(), strict=True)):
            if stays[larger]:
                stays[smaller] = False
        self._numbers = numbers[stays]
        self._polygons = np.array([self._with_crossings(polygon) for polygon in polygons[stays]], object)
        self._tree = shapely.STRtree(self._polygons)
        self._added = []

    def applied(self, window: Window, of_region: Numbers, polygons: Polygons) -> tuple[Numbers, Polygons]:
        """The outlines of a tile with the footprints in them.

        Where a footprint grew, its neighbours end at it; what it gave up goes to the neighbour with the longest shared
        edge. Nodata stays nodata.

        Args:
            window: The tile.
            of_region: (N,) region of each polygon.
            polygons: (N,) what lies of the regions in the tile, a coverage.
        """
        tile = shapely.box(window.col, window.row, window.stop_col, window.stop_row)
        here = np.sort(self._tree.query(tile, predicate="intersects"))
        if not here.size:
            return of_region, polygons
        replaced = np.isin(of_region, self._numbers)
        zone = np.concatenate([self._polygons[here], polygons[replaced]])
        touched = np.unique(shapely.STRtree(polygons).query(shapely.envelope(zone), predicate="intersects")[1])
        lines = [*shapely.boundary(polygons[touched]), self._lines(here, tile)]
        faces = shapely.get_parts(shapely.polygonize([shapely.union_all(np.array(lines, object))]))
        points = shapely.point_on_surface(faces)
        before = _first_within(points, polygons[touched])
        faces, points, before = faces[before >= 0], points[before >= 0], touched[before[before >= 0]]
        after = _first_within(points, self._polygons[here])
        number = of_region[before]
        known = number != OUTSIDE
        sliver = (shapely.area(faces) < np.minimum(_SLIVER, 0.5 * shapely.area(polygons[before]))) & known
        free = known & (after < 0) & (np.isin(number, self._numbers) | sliver)
        label = np.where(known & (after >= 0), self._numbers[here][after], number)
        label = _shared_out(faces, np.where(free, _FREE, label), number, self._numbers)
        kept = np.setdiff1d(np.arange(len(polygons)), touched)
        number, united = _united(
            np.concatenate([of_region[kept], label]), np.concatenate([polygons[kept], faces]), np.unique(label)
        )
        # Edges have a vertex wherever one crossed that is gone.
        return number, np.asarray(shapely.coverage_simplify(united, _COLLINEAR, simplify_boundary=False))

    def _lines(self, here: Numbers, tile: shapely.Polygon) -> shapely.MultiLineString:
        """The parts of outlines in a tile: between two vertices all of it lies in one."""
        xy, index = shapely.get_coordinates(
            shapely.get_parts(shapely.boundary(self._polygons[here])), return_index=True
        )
        left, top, right, bottom = tile.bounds
        inside = (xy[:, 0] >= left) & (xy[:, 0] <= right) & (xy[:, 1] >= top) & (xy[:, 1] <= bottom)
        first = np.flatnonzero((index[1:] == index[:-1]) & inside[1:] & inside[:-1])
        return shapely.multilinestrings(shapely.linestrings(np.stack([xy[first], xy[first + 1]], axis=1)))

    def _with_crossings(self, polygon: shapely.Polygon) -> shapely.Polygon:
        """A polygon with vertices exactly on the lines between tiles that it crosses."""
        low, high = np.floor_divide(np.reshape(polygon.bounds, (2, 2)), self._tile)
        if (low == high).all():
            return polygon
        rings = [self._crossed(shapely.get_coordinates(ring)) for ring in (polygon.exterior, *polygon.interiors)]
        return shapely.Polygon(rings[0], rings[1:])

    def _crossed(self, ring: NDArray[np.float64]) -> NDArray[np.float64]:
        points = []
        for start, end in pairwise(ring):
            met = [(0.0, start)]
            for axis in (0, 1):
                low, high = sorted((start[axis], end[axis]))
                for line in np.arange(np.floor(low / self._tile) + 1, np.ceil(high / self._tile)) * self._tile:
                    share = (line - start[axis]) / (end[axis] - start[axis])
                    point = start + share * (end - start)
                    point[axis], point[1 - axis] = line, np.rint(point[1 - axis] * _GRID) / _GRID
                    met.append((share, point))
            points += [point for _, point in sorted(met, key=lambda pair: pair[0])]
        return np.array([*points, ring[-1]])


def _first_within(points: NDArray[np.object_], polygons: Polygons) -> Numbers:
    """Index of a polygon that holds each point, or -1."""
    found = np.full(len(points), -1)
    polygon, point = shapely.STRtree(points).query(polygons, predicate="intersects")
    found[point] = polygon
    return found


def _shared_out(faces: Polygons, label: Numbers, before: Numbers, footprints: Numbers) -> Numbers:
    """Labels without `_FREE`: such a face joins the neighbour with the longest shared edge.

    Footprints and nodata get it where there is no other; alone among its like it stays what it was.
    """
    pairs, lengths = _neighbours(faces)
    label = label.copy()
    for _ in range(len(faces)):
        one, other = np.concatenate([pairs, pairs[::-1]], axis=1)
        length = np.concatenate([lengths, lengths])
        open_ = (label[one] == _FREE) & (label[other] != _FREE)
        if not open_.any():
            break
        face, near = one[open_], label[other[open_]]
        keys, index = np.unique(np.stack([face, near]), axis=1, return_inverse=True)
        total = np.bincount(index.ravel(), length[open_])
        rank = np.where(keys[1] == OUTSIDE, 2, np.isin(keys[1], footprints))
        order = np.lexsort((keys[1], -total, rank, keys[0]))
        chosen = order[np.unique(keys[0][order], return_index=True)[1]]
        label[keys[0][chosen]] = keys[1][chosen]
    return np.where(label == _FREE, before, label)


def _neighbours(faces: Polygons) -> tuple[Numbers, NDArray[np.float64]]:
    """Pairs (2, P) of faces that share a segment, and its length."""
    xy, index = shapely.get_coordinates(shapely.get_parts(shapely.boundary(faces)), return_index=True)
    ring_of = shapely.get_parts(shapely.boundary(faces), return_index=True)[1]
    ends = np.flatnonzero(index[1:] == index[:-1])
    segments = np.concatenate([xy[ends], xy[ends + 1]], axis=1)
    swap = (segments[:, 0] > segments[:, 2]) | ((segments[:, 0] == segments[:, 2]) & (segments[:, 1] > segments[:, 3]))
    segments[swap] = segments[swap][:, [2, 3, 0, 1]]
    face = ring_of[index[ends]]
    order = np.lexsort((*segments.T[::-1],))
    same = (segments[order][1:] == segments[order][:-1]).all(1)
    pairs = np.stack([face[order[:-1][same]], face[order[1:][same]]])
    step = segments[order[:-1][same]]
    return pairs, np.hypot(step[:, 2] - step[:, 0], step[:, 3] - step[:, 1])


def _united(number: Numbers, polygons: Polygons, changed: Numbers) -> tuple[Numbers, Polygons]:
    """One polygon, or several apart, for each of the regions that changed."""
    order = np.argsort(number, kind="stable")
    numbers, polygons = number[order], polygons[order]
    same = ~np.isin(numbers, changed)
    found_numbers, found = [numbers[same]], [polygons[same]]
    for one in changed:
        parts = polygons[numbers == one]
        if len(parts) > 1:
            parts = shapely.get_parts(shapely.coverage_union_all(parts))
        found_numbers.append(np.full(len(parts), one))
        found.append(parts)
    return np.concatenate(found_numbers), np.concatenate(found)
