"""Connected areas of one class in a map of any size, found tile by tile; small ones join their neighbours."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from idgbr import IGNORE
from idgbr.raster.grid import Window
from idgbr.raster.merges import Merges

TILE = 1024
"""Side of a tile in pixels."""
OUTSIDE = -1
"""Number of the region that nodata and everything outside of the map belong to."""

Numbers = NDArray[np.int64]


class Regions:
    """The regions of a map: pixels of one class that share edges.

    Regions below `min_pixels` join their largest neighbour, the smallest ones first; those amid nodata become
    nodata, and specks of nodata become what lies round them. Tiles are read twice and never held together: memory is
    a tile, a few bytes per region, and the pixels along the edges of tiles.

    Args:
        read: class ids (H, W) uint8 of a window, 255 is nodata.
        height: rows of the map.
        width: columns of the map.
        min_pixels: pixels of the smallest region that stays.
        tile: side of a tile.
    """

    def __init__(
        self, read: Callable[[Window], NDArray[np.uint8]], height: int, width: int, min_pixels: float, tile: int = TILE
    ) -> None:
        self.height, self.width, self.tile = height, width, tile
        self._read = read
        self._windows = list(Window(0, 0, height, width).tiles(tile))
        self._first: list[int] = []
        # The first and last line of every tile, in labels that are unique over all tiles.
        self._tops, self._bottoms = np.zeros((2, -(-height // tile), width), np.int64)
        self._lefts, self._rights = np.zeros((2, -(-width // tile), height), np.int64)
        self.classes, self._number = self._found(min_pixels)
        self._seams = self._lines_between_tiles()
        self._turns = [corners(numbers) for numbers in self._seams]

    def tiles(self) -> Iterator[tuple[Window, Numbers]]:
        """Every tile with the region number of its pixels (H, W): an index of `classes`, or -1."""
        for first, window in zip(self._first, self._windows, strict=True):
            labels, _ = label_areas(self._read(window))
            yield window, self._number[labels + first]

    def turns(self, row: Numbers, col: Numbers, elsewhere: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether a border turns, or a third region begins, at pixel corners on the lines between tiles.

        Args:
            row: (N,) lines of pixels above the corner.
            col: (N,) columns of pixels left of it.
            elsewhere: (N,) the answer for corners on no such line.
        """
        answer = elsewhere.copy()
        for along, across, length, turns in (
            (row, col, self.height, self._turns[0]),
            (col, row, self.width, self._turns[1]),
        ):
            on = (along % self.tile == 0) & (along > 0) & (along < length)
            answer[on] = turns[along[on] // self.tile - 1, 0, across[on]]
        return answer

    def cut(self, numbers: Numbers) -> None:
        """Regions that stay in pieces, one or more a tile: `turns` knows the pieces' corners on borders from now on."""
        for seam, turns in zip(self._seams, self._turns, strict=True):
            before, after = seam[:, 0], seam[:, 1]
            cut = np.isin(before, numbers) | np.isin(after, numbers)
            across = before != after
            border = across[:, :-1] | (before[:, :-1] != before[:, 1:]) | (after[:, :-1] != after[:, 1:])
            border_crosses = ~(across[:, :-1] | across[:, 1:])
            four_tiles = np.arange(border.shape[1]) % self.tile == 0
            turns[:, 0] |= (cut[:, :-1] | cut[:, 1:]) & border & (border_crosses | four_tiles)

    def _found(self, min_pixels: float) -> tuple[NDArray[np.uint8], Numbers]:
        """Class of each region, and number of the region of each label."""
        sizes, classes, firsts, touching, count = [], [], [], [], 0
        for window in self._windows:
            labels, values = label_areas(self._read(window))
            size = np.bincount(labels.ravel(), minlength=values.size)
            pairs = np.concatenate([_unequal(labels[:, :-1], labels[:, 1:]), _unequal(labels[:-1], labels[1:])])
            touching.append(pairs[(size[pairs] < min_pixels).any(1)] + count)
            sizes.append(size)
            classes.append(values)
            firsts.append(self._first_pixels(window, labels, values.size))
            self._first.append(count)
            self._keep_edges(window, labels + count)
            count += values.size
        value = np.concatenate(classes)
        across = np.concatenate(
            [_unequal(self._bottoms[:-1], self._tops[1:]), _unequal(self._rights[:-1], self._lefts[1:])]
        )
        alike = value[across[:, 0]] == value[across[:, 1]]
        number = _joined(across[alike], np.concatenate(firsts))
        pixels = np.bincount(number, weights=np.concatenate(sizes)).astype(np.int64)
        of_region = np.zeros(pixels.size, np.uint8)
        of_region[number] = value
        pairs = np.sort(number[np.concatenate([*touching, across[~alike]])], axis=1)
        pairs = np.unique(pairs[(pixels[pairs] < min_pixels).any(1)], axis=0)
        root = _merged(pixels, of_region, pairs, min_pixels)
        root[of_region[root] == IGNORE] = OUTSIDE
        return of_region, root[number]

    def _first_pixels(self, window: Window, labels: Numbers, count: int) -> Numbers:
        rows, cols = window.slices()
        index = np.arange(self.height)[rows, None] * self.width + np.arange(self.width)[cols]
        first = np.empty(count, np.int64)
        first[labels.ravel()[::-1]] = index.ravel()[::-1]  # of several values for one index the last one stays
        return first

    def _keep_edges(self, window: Window, labels: Numbers) -> None:
        i, j = window.row // self.tile, window.col // self.tile
        rows, cols = window.slices()
        self._tops[i, cols], self._bottoms[i, cols] = labels[0], labels[-1]
        self._lefts[j, rows], self._rights[j, rows] = labels[:, 0], labels[:, -1]

    def _lines_between_tiles(self) -> list[Numbers]:
        """Region numbers before and after each line between tiles, (lines, 2, W + 2) and (lines, 2, H + 2)."""
        return [
            np.pad(
                np.stack([self._number[before[:-1]], self._number[after[1:]]], axis=1),
                ((0, 0), (0, 0), (1, 1)),
                constant_values=OUTSIDE - 1,
            )
            for before, after in ((self._bottoms, self._tops), (self._rights, self._lefts))
        ]


def corners(numbers: Numbers) -> NDArray[np.bool_]:
    """Pixel corners (..., H - 1, W - 1) within (..., H, W) at which the border of a region turns or three regions meet.

    What is left out lies inside of a region or on a straight border of two: no polygon needs a vertex there.
    """
    upper_left, upper_right = numbers[..., :-1, :-1], numbers[..., :-1, 1:]
    lower_left, lower_right = numbers[..., 1:, :-1], numbers[..., 1:, 1:]
    level = (upper_left == upper_right) & (lower_left == lower_right)
    upright = (upper_left == lower_left) & (upper_right == lower_right)
    return ~(level | upright)


def label_areas(ids: NDArray[np.uint8]) -> tuple[Numbers, NDArray[np.uint8]]:
    """A number from 0 for each connected area of a tile, and the class of each."""
    labels = np.zeros(ids.shape, np.int64)
    classes: list[NDArray[np.uint8]] = []
    count = 0
    for value in np.unique(ids):
        here = ids == value
        found, areas = ndimage.label(here)
        labels[here] = found[here] + (count - 1)
        classes.append(np.full(areas, value, np.uint8))
        count += areas
    return labels, np.concatenate(classes)


def _unequal(one: Numbers, other: Numbers) -> Numbers:
    """The different pairs (N, 2) of unlike numbers that lie side by side."""
    differ = one != other
    low, high = np.minimum(one[differ], other[differ]), np.maximum(one[differ], other[differ])
    span = int(high.max(initial=0)) + 1
    codes = np.unique(low * span + high)
    return np.stack([codes // span, codes % span], axis=1)


def _joined(pairs: Numbers, first: Numbers) -> Numbers:
    """Number of the region (L,) that each label belongs to, given the pairs (P, 2) of labels that are one.

    Regions are numbered by their first pixels, so that nothing depends on where tiles end.
    """
    linked = coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(first.size, first.size))
    regions, number = connected_components(linked, directed=False)
    earliest = np.full(regions, np.iinfo(np.int64).max)
    np.minimum.at(earliest, number, first)
    rank = np.empty(regions, np.int64)
    rank[np.argsort(earliest)] = np.arange(regions)
    return rank[number]


def _merged(pixels: Numbers, classes: NDArray[np.uint8], pairs: Numbers, min_pixels: float) -> Numbers:
    """What each region has become a part of. Sizes and classes change in place.

    Args:
        pixels: (N,) size of each region.
        classes: (N,) class of each.
        pairs: (P, 2) neighbours of which one at least is small.
        min_pixels: size from which a region is not small.
    """
    near: dict[int, set[int]] = defaultdict(set)
    for one, other in pairs.tolist():
        near[one].add(other)
        near[other].add(one)
    joined = Merges()
    small = np.flatnonzero(pixels < min_pixels)
    queue = list(zip(pixels[small].tolist(), small.tolist(), strict=True))
    heapq.heapify(queue)
    while queue:
        size, region = heapq.heappop(queue)
        if region in joined or size != pixels[region]:
            continue  # part of another by now, or grown and queued anew
        round_it = {joined.root(other) for other in near.pop(region, ())} - {region}
        known = [other for other in round_it if classes[other] != IGNORE]
        if not known:
            classes[region] = IGNORE
            continue
        largest = max(known, key=lambda other: (pixels[other], -other))
        for other in (region, *known):
            if other != largest and (other == region or classes[other] == classes[largest]):
                joined[other] = largest
                pixels[largest] += pixels[other]
                near[largest] |= near.pop(other, set())
        near[largest] |= round_it
        if pixels[largest] < min_pixels:
            heapq.heappush(queue, (int(pixels[largest]), largest))
        else:
            near.pop(largest)
    root = np.arange(pixels.size)
    for region in joined:
        root[region] = joined.root(region)
    return root
