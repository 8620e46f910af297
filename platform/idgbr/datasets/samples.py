"""One draw's pixels: image, label and coarse map of a window, in the files' own dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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
        sample["coarse"] = Scene(prepared.coarse).read(place)[0]
    return sample
