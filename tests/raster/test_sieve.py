"""The minimum mapping unit: against a plain definition, and the same for any tiles."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from idgbr import IGNORE
from idgbr.raster import sieve as sieving
from idgbr.raster.grid import Window
from idgbr.raster.sieve import sieve, sieve_window

CLASSES = 3


def random_map(seed: int, height: int, width: int, grain: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Ids and scores: patches of about `grain` pixels, with holes of nodata."""
    rng = np.random.default_rng(seed)
    planes = np.stack([ndimage.gaussian_filter(rng.normal(size=(height, width)), grain) for _ in range(CLASSES + 1)])
    planes /= planes.std(axis=(1, 2), keepdims=True)
    exponentials = np.exp(planes[:-1] + 0.3 * rng.normal(size=planes[:-1].shape))
    scores = np.rint(255 * exponentials / exponentials.sum(0)).astype(np.uint8)
    ids = np.where(planes[-1] > 1.5, IGNORE, scores.argmax(0)).astype(np.uint8)
    return ids, scores


def regions_of(ids: NDArray[np.uint8]) -> list[tuple[int, NDArray[np.bool_]]]:
    found = []
    for value in np.unique(ids[ids != IGNORE]):
        labels, count = ndimage.label(ids == value)
        found += [(int(value), labels == number) for number in range(1, count + 1)]
    return found


def plainly(ids: NDArray[np.uint8], scores: NDArray[np.uint8], minimum: tuple[float, ...]) -> NDArray[np.uint8]:
    """The definition, one region at a time: the smallest region that can go somewhere goes."""
    ids = ids.copy()
    while True:
        small = []
        for value, region in regions_of(ids):
            if (pixels := int(region.sum())) < minimum[value]:
                borders: Counter[int] = Counter()
                for side in np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]):
                    moved = ndimage.shift(region.astype(np.uint8), side, order=0) > 0
                    borders.update(ids[moved & ~region & (ids != IGNORE)].tolist())
                if borders:
                    small.append((pixels, int(np.flatnonzero(region)[0]), region, borders))
        if not small:
            return ids
        _, _, region, borders = min(small, key=lambda one: one[:2])
        ids[region] = max(borders, key=lambda k: (int(scores[k][region].astype(int).sum()), borders[k], -k))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_plain_definition(seed: int) -> None:
    ids, scores = random_map(seed, 20, 23, grain=0.7 + 0.2 * seed)
    minimum = (6.0, 14.5, 3.0) if seed % 2 else (9.0,) * 3
    np.testing.assert_array_equal(sieve(ids, scores, minimum), plainly(ids, scores, minimum))


@pytest.mark.parametrize("seed", range(8))
def test_any_tiles_give_the_same_map(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where groups are longer than what is sieved, and longer than any first margin."""
    monkeypatch.setattr(sieving, "_FIRST_MARGIN_PX", 2)
    monkeypatch.setattr(sieving, "MAX_GROUP_PX", (7, 12, 30, 200)[seed % 4])
    rng = np.random.default_rng(seed)
    height, width = 70 + seed, 83
    ids, scores = random_map(seed, height, width, grain=0.8 + 0.25 * (seed % 5))
    minimum = tuple(float(x) for x in rng.integers(2, 60, CLASSES))
    whole = sieve(ids, scores, minimum)
    assert (whole != ids).any()
    np.testing.assert_array_equal(whole == IGNORE, ids == IGNORE)
    extent = Window(0, 0, height, width)
    for _ in range(3):
        sizes = rng.integers(5, 40, 2)
        tiled = np.zeros_like(ids)
        for row in range(0, height, sizes[0]):
            for col in range(0, width, sizes[1]):
                tile = Window(row, col, int(sizes[0]), int(sizes[1])).intersect(extent)
                assert tile is not None
                tiled[tile.slices()] = sieve_window(
                    lambda part: (ids[part.slices()], scores[:, *part.slices()]), tile, extent, minimum
                )
        np.testing.assert_array_equal(tiled, whole)


def test_no_small_region_is_left_but_amid_nodata() -> None:
    ids, scores = random_map(3, 90, 90, grain=1.2)
    left = [r for value, r in regions_of(sieve(ids, scores, (30.0,) * CLASSES)) if r.sum() < 30]
    for region in left:
        around = ndimage.binary_dilation(region) & ~region
        assert (ids[around] == IGNORE).all()


def test_a_class_without_a_minimum_lives() -> None:
    ids, scores = np.zeros((12, 12), np.uint8), np.zeros((2, 12, 12), np.uint8)
    ids[4:6, 4:6] = 1
    np.testing.assert_array_equal(sieve(ids, scores, (8.0, 0.0)), ids)
    assert not sieve(ids, scores, (0.0, 8.0)).any()


def test_without_scores_the_longest_border_counts() -> None:
    ids = np.zeros((9, 9), np.uint8)
    ids[:, 5:] = 1
    ids[3:5, 3:5] = 2
    assert (sieve(ids, np.zeros((3, 9, 9), np.uint8), (0, 0, 5))[3:5, 3:5] == 0).all()
