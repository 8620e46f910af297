"""Where pixels lie: rectangles of pixels, and the georeference of a raster."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import rasterio.windows
from affine import Affine
from rasterio.crs import CRS

from idgbr.raster.crs import crs_name, ground_sides, metres_per_unit, same_crs

Coefficients = tuple[float, float, float, float, float, float]
IDENTITY: Coefficients = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

_SCALE_TOLERANCE = 0.01
"""A map scale this close to 1 is the projection's own distortion: the nominal pixel size is kept."""


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of pixels. It may stick out of the raster it is read from."""

    row: int
    col: int
    height: int
    width: int

    @property
    def stop_row(self) -> int:
        return self.row + self.height

    @property
    def stop_col(self) -> int:
        return self.col + self.width

    def slices(self, origin: tuple[int, int] = (0, 0)) -> tuple[slice, slice]:
        """Row and column slices into an array whose first pixel is `origin`."""
        row, col = self.row - origin[0], self.col - origin[1]
        return slice(row, row + self.height), slice(col, col + self.width)

    def within(self, height: int, width: int) -> bool:
        """Whether it lies wholly on a raster of this size."""
        return self.row >= 0 and self.col >= 0 and self.stop_row <= height and self.stop_col <= width

    def intersect(self, other: Window) -> Window | None:
        """The common rectangle; None when there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.stop_row, other.stop_row) - row
        width = min(self.stop_col, other.stop_col) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def shift(self, rows: int, cols: int) -> Window:
        return replace(self, row=self.row + rows, col=self.col + cols)

    def tiles(self, size: int) -> Iterator[Window]:
        """The squares of `size` pixels (smaller at the far edges) that make up the window, row-major."""
        for row in range(self.row, self.stop_row, size):
            for col in range(self.col, self.stop_col, size):
                yield Window(row, col, min(size, self.stop_row - row), min(size, self.stop_col - col))

    def to_rasterio(self) -> rasterio.windows.Window:
        return rasterio.windows.Window(self.col, self.row, self.width, self.height)


@dataclass(frozen=True)
class Grid:
    """Size and georeference of a raster.

    Attributes:
        crs: coordinate reference system as WKT; None when the file carries none.
        transform: affine coefficients a..f, x = a col + b row + c and y = d col + e row + f.
        height: rows.
        width: columns.
    """

    crs: str | None
    transform: Coefficients
    height: int
    width: int

    @property
    def affine(self) -> Affine:
        return Affine(*self.transform)

    @property
    def window(self) -> Window:
        """The whole raster."""
        return Window(0, 0, self.height, self.width)

    @property
    def georeferenced(self) -> bool:
        """Whether the pixels lie anywhere: a transform or a CRS is known."""
        return self.crs is not None or self.transform != IDENTITY

    @property
    def gsd(self) -> float | None:
        """Ground sample distance in metres at the centre (geometric mean of the two sides).

        None without a CRS or a transform, and of a local one whose unit is unknown.
        """
        return _ground_sample_distance(self)

    @property
    def pixel_vectors(self) -> np.ndarray:
        """(2, 2): metres east and north of one column (first row) and of one line (second row), at the centre.

        Their area is that of a square of `gsd`; without one they are columns and lines.
        """
        gsd = self.gsd
        if gsd is None:
            return np.eye(2)
        a, b, _, d, e, _ = self.transform
        vectors = np.array([[a, d], [b, e]])
        if CRS.from_wkt(self.crs).is_geographic:
            _, latitude = self.affine @ (self.width / 2, self.height / 2)
            vectors[:, 0] *= math.cos(math.radians(latitude))
        return vectors * (gsd / math.sqrt(abs(np.linalg.det(vectors))))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest upright box (left, bottom, right, top) round the raster, in its own coordinates."""
        corners = [self.affine @ corner for corner in self._corners()]
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        return min(xs), min(ys), max(xs), max(ys)

    def _corners(self) -> list[tuple[int, int]]:
        return [(0, 0), (self.width, 0), (0, self.height), (self.width, self.height)]

    def crop(self, window: Window) -> Grid:
        """The grid of a window, which may stick out."""
        moved = self.affine @ Affine.translation(window.col, window.row)
        return Grid(self.crs, _coefficients(moved), window.height, window.width)

    def scaled(self, factor: float) -> Grid:
        """The same ground with pixels `factor` times as large; the size is rounded, the upper left corner stays."""
        height, width = (max(1, round(n / factor)) for n in (self.height, self.width))
        return Grid(self.crs, _coefficients(self.affine @ Affine.scale(factor)), height, width)

    def same_as(self, other: Grid, mine: str = "image", theirs: str = "label") -> list[str]:
        """Differences in words, both sides named; empty when the grids agree.

        Two grids agree when sizes are equal, CRSs are the same and corners lie within a tenth of a pixel. Where one
        side carries no georeference at all there is nothing to compare but the size.
        """
        found = []
        if (self.height, self.width) != (other.height, other.width):
            found.append(
                f"{mine} is {self.height} x {self.width} px (rows x columns), "
                f"{theirs} is {other.height} x {other.width}"
            )
        if not (self.georeferenced and other.georeferenced):
            return found
        if self.crs and other.crs and not same_crs(self.crs, other.crs):
            found.append(f"{mine} has CRS {crs_name(self.crs)}, {theirs} has {crs_name(other.crs)}")
        elif not found:
            off = max(math.dist(corner, ~self.affine @ (other.affine @ corner)) for corner in self._corners())
            if off > 0.1:
                found.append(
                    f"{theirs} is shifted by up to {off:.4g} px: transform {self.transform} against {other.transform}"
                )
        return found


def _coefficients(transform: Affine) -> Coefficients:
    return (transform.a, transform.b, transform.c, transform.d, transform.e, transform.f)


def grid_of(dataset: rasterio.io.DatasetReader) -> Grid:
    """The grid of an open rasterio dataset. Ground control points alone count as no georeference."""
    crs = dataset.crs.to_wkt() if dataset.crs else None
    return Grid(crs, _coefficients(dataset.transform), dataset.height, dataset.width)


@lru_cache(maxsize=1024)
def _ground_sample_distance(grid: Grid) -> float | None:
    if grid.crs is None or grid.transform == IDENTITY:
        return None
    a, b, _, d, e, _ = grid.transform
    unit = metres_per_unit(grid.crs)
    nominal = math.sqrt(math.hypot(a, d) * math.hypot(b, e)) * unit if unit is not None else None
    crs = CRS.from_wkt(grid.crs)
    if not (crs.is_projected or crs.is_geographic):
        return nominal  # a local system lies nowhere on the ellipsoid
    row, col = grid.height / 2, grid.width / 2
    along, down = ground_sides(grid.crs, *(grid.affine @ p for p in ((col, row), (col + 1, row), (col, row + 1))))
    on_ground = math.sqrt(along * down)
    if not math.isfinite(on_ground) or on_ground == 0.0:
        return nominal
    # Web Mercator away from the equator stretches metres; UTM's 0.04 % is nothing a file name would not round away.
    if nominal is not None and abs(on_ground / nominal - 1) < _SCALE_TOLERANCE:
        return nominal
    return on_ground
