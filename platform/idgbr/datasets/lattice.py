"""A small index of where classes and boundaries are in a label raster, for choosing training windows.

The raster is read in strips, so memory does not grow with its height; what is kept is one entry per lattice cell and
class, not per pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idgbr import IGNORE
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene

_STRIP = 256  # rows read at once; the block height of prepared labels, and a multiple of small cells


def boundary_mask(label: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels of label (H, W) whose right or lower neighbour has another class; an ignored pixel bounds nothing."""
    mask = np.zeros(label.shape, bool)
    for here, there in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        a, b = label[here], label[there]
        mask[here] |= (a != b) & (a != IGNORE) & (b != IGNORE)
    return mask


def read_index_raster(path: str, window: Window) -> NDArray[np.uint8]:
    """Class ids (h, w) of a prepared label raster, IGNORE outside it and where it carries none."""
    return read_index_windows(path, [window])[0]


def read_index_windows(path: str, windows: Sequence[Window]) -> list[NDArray[np.uint8]]:
    """`read_index_raster` of several windows."""
    read = Scene(path, bands=(1,)).read_each(windows)
    return [np.where(valid, values[0], IGNORE).astype(np.uint8) for values, valid in read]


@dataclass(frozen=True)
class Positions:
    """One pixel per lattice cell that holds something: region, row and column, and how many such pixels there are."""

    region: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    weight: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.region)


@dataclass(frozen=True)
class Lattice:
    """Positions per class, and positions on boundaries, over all regions of a plan."""

    cell: int
    classes: dict[int, Positions]
    boundary: Positions


def cell_size(pixels: int, most_cells: int = 4_000_000) -> int:
    """Side of a cell in pixels: 16, doubled until so many pixels make at most `most_cells` cells."""
    cell = 16
    while pixels > most_cells * cell * cell:
        cell *= 2
    return cell


def build_lattice(labels: list[tuple[str, int, int]]) -> Lattice:
    """Index of prepared label rasters.

    Args:
        labels: path, height and width of each region's label raster, in the regions' order.
    """
    cell = cell_size(sum(height * width for _, height, width in labels))
    # Within a cell the first hit in a fixed random order stands for it: scanning order would favour upper left edges.
    order = np.random.default_rng(0).permutation(cell * cell)
    found: dict[int, list[NDArray]] = {}
    edges: list[NDArray] = []
    strip = max(_STRIP, cell)
    for region, (path, height, width) in enumerate(labels):
        for top in range(0, height, strip):
            rows = min(strip, height - top)
            label = read_index_raster(path, Window(top, 0, min(rows + 1, height - top), width))
            edge = boundary_mask(label)[:rows]
            label = label[:rows]
            blocks = _cells(label, cell, IGNORE)[..., order]
            for value in np.unique(label):
                if value != IGNORE:
                    hits = _positions(blocks == value, order, cell, region, top)
                    found.setdefault(int(value), []).append(hits)
            if edge.any():
                edges.append(_positions(_cells(edge, cell, False)[..., order], order, cell, region, top))
    return Lattice(cell, {value: _join(found[value]) for value in sorted(found)}, _join(edges))


def _cells(plane: NDArray, cell: int, fill: int | bool) -> NDArray:
    """Plane (H, W) cut in cells: (rows, cols, cell * cell), padded with `fill`."""
    height, width = plane.shape
    rows, cols = -(-height // cell), -(-width // cell)
    padded = np.full((rows * cell, cols * cell), fill, plane.dtype)
    padded[:height, :width] = plane
    return padded.reshape(rows, cell, cols, cell).swapaxes(1, 2).reshape(rows, cols, cell * cell)


def _positions(hits: NDArray[np.bool_], order: NDArray, cell: int, region: int, top: int) -> NDArray[np.int32]:
    """Entries (4, n) region, row, col, count of the cells with a hit; hits (rows, cols, cell * cell) in `order`."""
    count = hits.sum(axis=-1)
    rows, cols = np.nonzero(count)
    pixel = order[hits[rows, cols].argmax(axis=-1)]
    entries = (
        np.full(len(rows), region),
        top + rows * cell + pixel // cell,
        cols * cell + pixel % cell,
        count[rows, cols],
    )
    return np.stack(entries).astype(np.int32)


def _join(pieces: list[NDArray[np.int32]]) -> Positions:
    return Positions(*(np.concatenate(pieces, axis=1) if pieces else np.zeros((4, 0), np.int32)))
