"""The pixels of draws: image, label and coarse map of their windows, in the files' own dtypes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from idgbr import IGNORE
from idgbr.datasets.draws import Draw
from idgbr.datasets.lattice import read_index_windows
from idgbr.raster.gdal import gdal_env
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene

if TYPE_CHECKING:
    from idgbr.datasets.prepare import PreparedRegion


def read_samples(regions: Sequence[PreparedRegion], draws: Sequence[Draw], window: int) -> dict[str, NDArray[Any]]:
    """The windows of draws, neither augmented nor normalised, read in the order of files and rows.

    Args:
        regions: what the draws' regions count in.
        draws: where the N windows are.
        window: their side S in pixels.

    Returns:
        In the draws' order, "image" (N, B, S, S) in the imagery's dtype, "valid" (N, S, S) uint8 0/1, "label" (N, S, S)
        uint8 with IGNORE where there is no label or no valid pixel, "coarse" (N, C, S, S) uint8 where the regions have
        coarse maps (class ids, then probabilities times 255), and (N,) "seed", "transform", "row" and "col", absolute
        scene pixel of the upper left.
    """
    order = sorted(range(len(draws)), key=lambda i: (draws[i].region, draws[i].row, draws[i].col))
    samples: list[dict[str, Any]] = [{} for _ in draws]
    with gdal_env():
        for number, group in groupby(order, key=lambda i: draws[i].region):
            own = list(group)
            read = _read(regions[number], [draws[i] for i in own], window)
            for i, sample in zip(own, read, strict=True):
                samples[i] = sample
    return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}


def _read(region: PreparedRegion, draws: Sequence[Draw], window: int) -> list[dict[str, Any]]:
    places = [Window(draw.row, draw.col, window, window) for draw in draws]
    images, labels = region.image.read_each(places), read_index_windows(region.label, places)
    samples = [
        {
            "image": image,
            "valid": valid.astype(np.uint8),
            "label": np.where(valid, label, np.uint8(IGNORE)),
            "seed": draw.seed,
            "transform": draw.transform,
            "row": region.origin[0] + draw.row,
            "col": region.origin[1] + draw.col,
        }
        for draw, (image, valid), label in zip(draws, images, labels, strict=True)
    ]
    if region.coarse is not None:
        for sample, coarse in zip(samples, _read_coarse(region.coarse, places, region.grid.window), strict=True):
            sample["coarse"] = coarse
    return samples


def _read_coarse(path: str, places: Sequence[Window], region: Window) -> Iterator[NDArray[np.uint8]]:
    """All bands (C, S, S) of a coarse map, ids being IGNORE outside of the region.

    Bands are named one by one and validity is not asked for: a writer may have marked the fourth of four uint8 bands as
    alpha, which here is a probability like the others.
    """
    for place, (coarse, _) in zip(places, Scene(path, bands=_all_bands(path)).read_each(places), strict=True):
        outside = np.ones(coarse.shape[1:], bool)
        inside = place.intersect(region)
        if inside is not None:
            outside[inside.slices((place.row, place.col))] = False
        coarse[0, outside] = IGNORE
        yield coarse


@lru_cache(maxsize=4096)
def _all_bands(path: str) -> tuple[int, ...]:
    return tuple(range(1, len(Scene(path).profile().bands) + 1))
