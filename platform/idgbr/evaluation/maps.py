"""The maps and regions an evaluation reads."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Protocol

import numpy as np

from idgbr import IGNORE
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene

Map = np.ndarray | str | PathLike[str]
"""Class ids: (H, W) uint8 of a whole region, or a raster whose first band holds them on the region's grid."""


class MeasuredRegion(Protocol):
    """What evaluation needs of a region: its id, its image and a raster of class ids on the image's grid."""

    @property
    def id(self) -> str: ...

    @property
    def image(self) -> Scene: ...

    @property
    def label(self) -> str: ...


def read_ids(source: Map, window: Window | None = None) -> np.ndarray:
    """Class ids of a map, or of a window of it, (H, W) uint8; IGNORE where the map has no data.

    Raises:
        UserError: the raster cannot be read.
    """
    if isinstance(source, np.ndarray):
        return source if window is None else source[window.slices()]
    scene = Scene(fspath(source), bands=(1,))
    values, valid = scene.read(window or scene.grid().window)
    return np.where(valid, values[0], IGNORE).astype(np.uint8)
