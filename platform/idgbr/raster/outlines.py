"""Outlines of regions, tile by tile in bounded memory: shared edges, simplified or with right angles on request."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray

from idgbr.raster.footprints import Footprints
from idgbr.raster.grid import Window
from idgbr.raster.regions import OUTSIDE, Regions, corners
from idgbr.raster.right_angles import right_angled

LARGEST = 250_000
"""Vertices of the largest polygon."""
_BATCH = 200_000
"""Vertices after which polygons are handed on."""
_IN_MEMORY = 16 * 2**20
"""Bytes of unfinished polygons from which they lie on disk."""

Outlined = tuple[NDArray[np.int64], NDArray[np.object_]]
"""Region numbers (N,) and their polygons (N,), in columns and rows of pixels."""


@dataclass(frozen=True)
class Style:
    """How outlines differ from the pixels' edges.

    Attributes:
        vectors: (2, 2) metres east and north of one column (first row) and of one line (second row); pixels where the
            map has no scale.
        simplify: Metres (pixels) that an edge may move by, about.
        footprints: Class ids of the regions that get right angles.
    """

    vectors: NDArray[np.float64]
    simplify: float = 0.0
    footprints: frozenset[int] = frozenset()

    @property
    def as_pixels(self) -> bool:
        """Whether outlines follow the pixels' edges."""
        return not self.simplify and not self.footprints

    @property
    def pixel(self) -> float:
        """Side of a square as large as a pixel, in metres."""
        return float(np.sqrt(abs(np.linalg.det(self.vectors))))

    def on_ground(self, polygons: NDArray[np.object_]) -> NDArray[np.object_]:
        """Polygons in metres, for polygons in pixels."""
        return np.asarray(shapely.transform(polygons, lambda xy: xy @ self.vectors))

    def in_pixels(self, polygons: NDArray[np.object_]) -> NDArray[np.object_]:
        """Polygons in pixels, for polygons in metres."""
        inverse = np.linalg.inv(self.vectors)
        return np.asarray(shapely.transform(polygons, lambda xy: xy @ inverse))


def outlines(regions: Regions, style: Style, folder: str | None) -> Iterator[Outlined]:
    """The polygons of all regions: tile by tile those that lie in one, then those that lie in several.

    Args:
        regions: The regions of a map.
        style: How outlines differ from the pixels' edges.
        folder: Where polygons that go on in other tiles wait; None: the system's folder of temporary files.
    """
    if style.as_pixels:
        yield from _collected(regions, _pixel_outlines(regions), folder, lambda pieces: _joined(pieces, regions))
        return
    footprints = _footprints(regions, style, folder) if style.footprints else None
    tiles = _styled(regions, style, footprints)
    # Where an edge crosses from tile to tile its vertex stays: both of its polygons have it.
    yield from _collected(regions, tiles, folder, lambda pieces: shapely.get_parts(shapely.coverage_union_all(pieces)))


def _footprints(regions: Regions, style: Style, folder: str | None) -> Footprints:
    """The regions that can have right angles, largest first; one that would overlap another stays as it is."""
    of_class = np.isin(regions.classes, list(style.footprints))
    tiles = ((window, np.where((at >= 0) & of_class[at], at, OUTSIDE)) for window, at in regions.tiles())
    pixel_outlines = ((window, *_outlines(regions, window, numbers, numbers != OUTSIDE)) for window, numbers in tiles)
    footprints = Footprints(regions.height, regions.width, regions.tile)
    for numbers, polygons in _collected(regions, pixel_outlines, folder, lambda p: _joined(p, regions), cut=False):
        once = np.bincount(np.unique(numbers, return_inverse=True)[1])
        single = np.isin(numbers, np.unique(numbers)[once == 1])
        for number, polygon in zip(numbers[single], style.on_ground(polygons[single]), strict=True):
            fitted = right_angled(polygon, style.pixel)
            if fitted is not None:
                footprints.add(int(number), style.in_pixels(np.array([fitted], object))[0])
    footprints.settle()
    return footprints


def _styled(
    regions: Regions, style: Style, footprints: Footprints | None
) -> Iterator[tuple[Window, NDArray[np.int64], NDArray[np.object_]]]:
    for window, numbers in regions.tiles():
        # Nodata takes part: its edge is simplified as any other, and the edge of the tile alone stays.
        of_region, polygons = _outlines(regions, window, numbers, np.ones(numbers.shape, bool))
        if style.simplify:
            # A triangle as high as an edge may move and eight times as wide has the area of this square. Areas have one
            # ratio in all directions, so they are compared in pixels: in whole numbers lines that meet do so exactly.
            side = 2 * style.simplify / style.pixel
            polygons = shapely.coverage_simplify(polygons, side, simplify_boundary=False)
            of_region, polygons = _mended(of_region, polygons)
        if footprints is not None:
            of_region, polygons = _mended(*footprints.applied(window, of_region, polygons))
        known = of_region != OUTSIDE
        yield window, of_region[known], polygons[known]


def _mended(of_region: NDArray[np.int64], polygons: NDArray[np.object_]) -> Outlined:
    """Polygons whose rings touch themselves, which simplifying leaves, as valid ones with the same edges."""
    broken = ~shapely.is_valid(polygons)
    if not broken.any():
        return of_region, polygons
    polygons = polygons.copy()
    polygons[broken] = shapely.make_valid(polygons[broken], method="structure", keep_collapsed=False)
    parts, index = shapely.get_parts(polygons, return_index=True)
    return of_region[index], parts


def _pixel_outlines(regions: Regions) -> Iterator[tuple[Window, NDArray[np.int64], NDArray[np.object_]]]:
    for window, numbers in regions.tiles():
        yield window, *_outlines(regions, window, numbers, numbers != OUTSIDE)


def _collected(
    regions: Regions,
    tiles: Iterator[tuple[Window, NDArray[np.int64], NDArray[np.object_]]],
    folder: str | None,
    join: Callable[[NDArray[np.object_]], NDArray[np.object_]],
    cut: bool = True,
) -> Iterator[Outlined]:
    """Polygons of regions out of those of tiles; regions too large for one are left in pieces, or out."""
    with _Pieces(folder) as pieces:
        for window, of_region, polygons in tiles:
            left, top, right, bottom = shapely.bounds(polygons).reshape(-1, 4).T
            goes_on = (left == window.col) & (window.col > 0) | (top == window.row) & (window.row > 0)
            goes_on |= (right == window.stop_col) & (right < regions.width)
            goes_on |= (bottom == window.stop_row) & (bottom < regions.height)
            pieces.add(of_region[goes_on], polygons[goes_on])
            yield of_region[~goes_on], polygons[~goes_on]
        large = pieces.larger_than(LARGEST)
        if cut:
            regions.cut(large)
        batch: list[tuple[int, NDArray[np.object_]]] = []
        vertices = 0
        for number, parts in pieces.by_region(large):
            if number in large and not cut:
                continue
            whole = parts if number in large else join(parts)
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


def _outlines(regions: Regions, window: Window, numbers: NDArray[np.int64], mask: NDArray[np.bool_]) -> Outlined:
    """What lies of each region in a tile, with a vertex wherever a neighbour has one, in this tile or beyond.

    Args:
        regions: The regions of the map.
        window: The tile.
        numbers: (H, W) region of each pixel.
        mask: (H, W) pixels that outlines are made of.
    """
    found = list(rasterio.features.shapes(numbers.astype(np.int32), mask=mask, connectivity=4))
    of_region = np.array([int(number) for _, number in found], np.int64)
    polygons = np.array([shapely.geometry.shape(geometry) for geometry, _ in found], object)
    here = corners(np.pad(numbers, 1, constant_values=OUTSIDE - 1))

    def needed(row: NDArray[np.int64], col: NDArray[np.int64]) -> NDArray[np.bool_]:
        within = here[row - window.row, col - window.col]
        return within | regions.turns(row, col, within)

    moved = shapely.transform(polygons, lambda xy: xy + np.array([window.col, window.row]))
    parts, index = shapely.get_parts(_thinned(shapely.segmentize(moved, 1.0), needed), return_index=True)
    return of_region[index], parts


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
