"""One draw's pixels: image, label and coarse map of a window, in the files' own dtypes."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from idgbr import IGNORE
from idgbr.datasets.draws import Draw
from idgbr.datasets.lattice import read_index_raster
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene

if TYPE_CHECKING:
    from idgbr.datasets.prepare import PreparedRegion


def read_sample(prepared: PreparedRegion, draw: Draw, window: int) -> dict[str, Any]:
    """The window of a draw, neither augmented nor normalised.

    Args:
        prepared: the draw's region.
        draw: where the window is.
        window: its side S in pixels.

    Returns:
        "image" (B, S, S) in the imagery's dtype, "valid" (S, S) uint8 0/1, "label" (S, S) uint8 with IGNORE where
        there is no label or no valid pixel, "coarse" (C, S, S) uint8 where the region has a coarse map (class ids,
        then probabilities times 255), "seed", "transform", and "row", "col": absolute scene pixel of the upper left.
    """
    place = Window(draw.row, draw.col, window, window)
    image, valid = prepared.image.read(place)
    label = read_index_raster(prepared.label, place)
    sample: dict[str, Any] = {
        "image": image,
        "valid": valid.astype(np.uint8),
        "label": np.where(valid, label, np.uint8(IGNORE)),
        "seed": draw.seed,
        "transform": draw.transform,
        "row": prepared.origin[0] + draw.row,
        "col": prepared.origin[1] + draw.col,
    }
    if prepared.coarse is not None:
        sample["coarse"] = _read_coarse(prepared.coarse, place, prepared.grid.window)
    return sample


def _read_coarse(path: str, place: Window, region: Window) -> NDArray[np.uint8]:
    """All bands (C, S, S) of a coarse map, ids being IGNORE outside of the region.

    Bands are named one by one and validity is not asked for: a writer may have marked the fourth of four uint8 bands as
    alpha, which here is a probability like the others.
    """
    coarse, _ = Scene(path, bands=_all_bands(path)).read(place)
    outside = np.ones(coarse.shape[1:], bool)
    inside = place.intersect(region)
    if inside is not None:
        outside[inside.slices((place.row, place.col))] = False
    coarse[0, outside] = IGNORE
    return coarse


@lru_cache(maxsize=4096)
def _all_bands(path: str) -> tuple[int, ...]:
    return tuple(range(1, len(Scene(path).profile().bands) + 1))
