"""The minimum mapping unit: regions too small for a map go to a neighbouring class, the same in any tiles.

Small regions that touch each other form a group. What becomes of a group depends on nothing but the group and the
classes around it, so a tile is sieved exactly once its margin holds every group that reaches into the tile.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from idgbr import IGNORE
from idgbr.raster.grid import Window
from idgbr.raster.merges import Merges
from idgbr.raster.regions import Numbers, label_areas

MAX_GROUP_PX = 512
"""Longest side of a group of small regions that is sieved; a longer one, a field of noise, stays as it is. With it the
margin of a tile, and so memory, is bounded."""
_FIRST_MARGIN_PX = 64
"""Margin of a tile to begin with: nearly always enough."""

Planes = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Class ids (H, W), IGNORE is nodata, and scores (K, H, W): class probabilities times 255."""


def sieve(ids: NDArray[np.uint8], scores: NDArray[np.uint8], min_pixels: Sequence[float]) -> NDArray[np.uint8]:
    """Class ids in which no region is below its class's minimum.

    A region (4-connected pixels of one class) below the minimum goes to the neighbouring class with the highest mean
    probability inside it; of equally probable ones to that with the longest common border. The smallest regions go
    first, and what they join grows by them. Nodata neither grows nor shrinks: a small region amid nodata stays. So
    does a group of small regions longer than `MAX_GROUP_PX`.

    Args:
        ids: (H, W) class ids, 255 is nodata.
        scores: (K, H, W) class probabilities times 255. Whole numbers, so that sums do not depend on their order.
        min_pixels: Of each class, pixels of the smallest region that stays.

    Returns:
        (H, W), a copy.
    """
    window = Window(0, 0, *ids.shape)
    return sieve_window(lambda part: (ids[part.slices()], scores[:, *part.slices()]), window, window, min_pixels)


def sieve_window(
    read: Callable[[Window], Planes], window: Window, extent: Window, min_pixels: Sequence[float]
) -> NDArray[np.uint8]:
    """One window of the sieved map: what `sieve` of the whole map holds there.

    Args:
        read: Planes of a window within the map.
        window: The window.
        extent: The whole map.
        min_pixels: See `sieve`.

    Returns:
        (h, w) class ids of the window.
    """
    minimum = np.zeros(256)
    minimum[: len(min_pixels)] = min_pixels
    margin = _FIRST_MARGIN_PX
    while True:
        around = Window(
            window.row - margin, window.col - margin, window.height + 2 * margin, window.width + 2 * margin
        ).intersect(extent)
        assert around is not None
        ids, scores = read(around)
        part = _Part(ids, scores, minimum, around, extent, window)
        # Beyond the longest group lie pixels enough to tell whether a region next to it is small.
        if part.complete or margin > 2 * MAX_GROUP_PX:
            return part.sieved()
        margin = min(4 * margin, 2 * MAX_GROUP_PX + 1)


@dataclass
class _Region:
    """A small region, and what has joined it."""

    pixels: int
    first: int
    """Its first pixel in row-major order, which ranks regions of one size."""
    scores: NDArray[np.float64]
    """(K,) sums over its pixels."""
    borders: Counter[int]
    """Common border, in pixel sides, with each region that it touches."""


class _Part:
    """A part of a map: a window with a margin, in which some groups of small regions may not be seen whole."""

    def __init__(
        self,
        ids: NDArray[np.uint8],
        scores: NDArray[np.uint8],
        minimum: NDArray[np.float64],
        around: Window,
        extent: Window,
        window: Window,
    ) -> None:
        self._ids, self._scores, self._minimum = ids, scores, minimum
        self._core = window.slices((around.row, around.col))
        self._labels, self._class = label_areas(ids)
        self._sizes = np.bincount(self._labels.ravel(), minlength=self._class.size)
        self._small = self._sizes < minimum[self._class]
        if not self._small.any():
            self._groups: list[Numbers] = []
            self.complete = True
            return
        boxes = ndimage.find_objects(self._labels + 1)
        self._boxes = np.array([[r.start, c.start, r.stop, c.stop] for r, c in boxes])
        self._small &= self._sides(self._boxes) <= MAX_GROUP_PX
        self._pairs, self._lengths = _borders(self._labels, self._small)
        self._groups, self.complete = self._groups_of_window(around, extent)

    def sieved(self) -> NDArray[np.uint8]:
        """Class ids (h, w) of the window."""
        classes = self._class.copy()
        numbers = np.concatenate([*self._groups, np.empty(0, np.int64)])
        if numbers.size:
            for number, value in self._decided(numbers).items():
                classes[number] = value
            return classes[self._labels[self._core]]
        return self._ids[self._core].copy()

    @staticmethod
    def _sides(boxes: Numbers) -> Numbers:
        return np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])

    def _groups_of_window(self, around: Window, extent: Window) -> tuple[list[Numbers], bool]:
        """Groups to decide, which are seen whole and reach into the window; whether no other one reaches into it."""
        height, width = self._ids.shape
        edges = np.array([around.row > extent.row, around.col > extent.col,
                          around.stop_row < extent.stop_row, around.stop_col < extent.stop_col])  # fmt: skip
        open_sides = (self._boxes == [0, 0, height, width]) & edges
        small = np.flatnonzero(self._small)
        both = self._small[self._pairs].all(axis=1)
        count = self._class.size
        linked = coo_array((np.ones(int(both.sum()), bool), tuple(self._pairs[both].T)), shape=(count, count))
        _, group = connected_components(linked, directed=False)
        order = small[np.argsort(group[small], kind="stable")]
        members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
        in_window = np.zeros(count, bool)
        in_window[np.unique(self._labels[self._core])] = True
        groups, complete = [], True
        for numbers in members:
            if not in_window[numbers].any():
                continue
            boxes = self._boxes[numbers]
            box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
            if open_sides[numbers].any():
                complete = False
            elif self._sides(box[None])[0] <= MAX_GROUP_PX:
                groups.append(numbers)
        return groups, complete

    def _regions(self, numbers: Numbers) -> dict[int, _Region]:
        chosen = np.zeros(self._class.size, bool)
        chosen[numbers] = True
        at = np.flatnonzero(chosen[self._labels.ravel()])
        labels = self._labels.ravel()[at]
        first = np.zeros(self._class.size, np.int64)
        first[labels[::-1]] = at[::-1]  # of several values for one index the last one stays
        sums = np.stack([np.bincount(labels, plane.ravel()[at], self._class.size) for plane in self._scores], axis=1)
        borders: dict[int, Counter[int]] = defaultdict(Counter)
        concerned = chosen[self._pairs].any(axis=1)
        pairs, lengths = self._pairs[concerned].tolist(), self._lengths[concerned].tolist()
        for (one, other), length in zip(pairs, lengths, strict=True):
            borders[one][other] = borders[other][one] = length
        return {n: _Region(int(self._sizes[n]), int(first[n]), sums[n], borders[n]) for n in numbers.tolist()}

    def _decided(self, numbers: Numbers) -> dict[int, int]:
        """The class that each of these small regions ends in."""
        regions = self._regions(numbers)
        classes = {number: int(self._class[number]) for region in regions.values() for number in region.borders}
        classes |= {number: int(self._class[number]) for number in regions}
        joined = Merges()
        queue = [(region.pixels, region.first, number) for number, region in regions.items()]
        heapq.heapify(queue)
        while queue:
            pixels, _, number = heapq.heappop(queue)
            region = regions[number]
            if number in joined or pixels != region.pixels:
                continue  # a part of another by now, or grown and queued anew
            around: Counter[int] = Counter()
            for other, length in region.borders.items():
                around[joined.root(other)] += length
            del around[number]
            by_class: Counter[int] = Counter()
            for other, length in around.items():
                by_class[classes[other]] += length
            del by_class[IGNORE]
            if not by_class:
                continue
            best = max(by_class, key=lambda value: (region.scores[value], by_class[value], -value))
            alike = [other for other in around if classes[other] == best]
            large = [other for other in alike if other not in regions]
            small = [other for other in alike if other in regions]
            classes[number] = best
            if large:
                joined.update(dict.fromkeys((number, *small), large[0]))
                continue
            region.borders = around
            for other in small:
                _join(region, regions[other])
                joined[other] = number
            if region.pixels < self._minimum[best]:
                heapq.heappush(queue, (region.pixels, region.first, number))
        return {number: classes[joined.root(number)] for number in regions}


def _join(region: _Region, other: _Region) -> None:
    region.pixels += other.pixels
    region.first = min(region.first, other.first)
    region.scores = region.scores + other.scores
    region.borders.update(other.borders)


def _borders(labels: Numbers, small: NDArray[np.bool_]) -> tuple[Numbers, Numbers]:
    """Pairs (P, 2) of touching regions of which one at least is small, and the length (P,) of their common border."""
    codes, count = [], small.size
    for one, other in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        chosen = (one != other) & (small[one] | small[other])
        low, high = np.minimum(one[chosen], other[chosen]), np.maximum(one[chosen], other[chosen])
        codes.append(low * count + high)
    pairs, lengths = np.unique(np.concatenate(codes), return_counts=True)
    return np.stack([pairs // count, pairs % count], axis=1), lengths
