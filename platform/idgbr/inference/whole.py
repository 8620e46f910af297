"""A scene that fits in memory, predicted in overlapping windows, blended: both stages in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from idgbr import IGNORE
from idgbr.config.inference import WindowsConfig
from idgbr.config.models import SamplerConfig
from idgbr.inference.min_region import apply_min_region, min_pixels
from idgbr.inference.planes import as_probabilities, to_planes
from idgbr.inference.predictor import Predictor
from idgbr.raster.blending import WindowPass
from idgbr.raster.grid import Window


class Readable(Protocol):
    """Anything read by windows, as `raster.scene.Scene` is."""

    def read(self, window: Window) -> tuple[NDArray, NDArray[np.bool_]]: ...


@dataclass(frozen=True)
class ArrayScene:
    """An array (B, H, W) read by windows as a scene is: outside of it pixels are 0 and not valid."""

    image: NDArray

    def read(self, window: Window) -> tuple[NDArray, NDArray[np.bool_]]:
        """Pixels (B, h, w) and their validity (h, w); NaN and infinite pixels are not valid."""
        bands, height, width = self.image.shape
        pixels = np.zeros((bands, window.height, window.width), self.image.dtype)
        valid = np.zeros((window.height, window.width), bool)
        inside = window.intersect(Window(0, 0, height, width))
        if inside is not None:
            here = inside.slices((window.row, window.col))
            part = self.image[(slice(None), *inside.slices())]
            finite = np.isfinite(part).all(axis=0)
            pixels[(slice(None), *here)] = np.where(finite, part, 0)
            valid[here] = finite
        return pixels, valid


@dataclass(frozen=True)
class WholeMap:
    """Maps of one scene.

    Attributes:
        coarse: (H, W) uint8 class ids, IGNORE where there is no imagery.
        refined: Likewise; the coarse map of a model without stage 2.
    """

    coarse: NDArray[np.uint8]
    refined: NDArray[np.uint8]


def predict_whole(
    predictor: Predictor, scene: Readable, height: int, width: int, sampler: SamplerConfig | None = None
) -> WholeMap:
    """Both stages, each in its own windows: stage 2 sees the blended coarse map, as everywhere else.

    Args:
        predictor: The model.
        scene: What is read.
        height: Its rows.
        width: Its columns.
        sampler: Sampler settings; default: the model's own.
    """
    spec, classes = predictor.spec, len(predictor.spec.classes)
    _, valid = scene.read(Window(0, 0, height, width))

    def predict(window: Window) -> NDArray[np.float32]:
        return predictor.coarse(*_batch(scene.read(window)))[0]

    probabilities = _blended(height, width, classes, spec.inference.coarse, predict)
    planes = to_planes(probabilities, valid)
    coarse = planes[0]
    if predictor.refiner is None:
        return WholeMap(coarse, coarse)
    # Stage 2 sees what a coarse raster on disk would hold, so that every executor makes the same map.
    quantised = ArrayScene(as_probabilities(planes[1:]))
    refined = refine_whole(predictor, scene, quantised, height, width, sampler)[:classes]
    return WholeMap(coarse, np.where(valid, refined.argmax(0), IGNORE).astype(np.uint8))


def refine_whole(
    predictor: Predictor,
    scene: Readable,
    coarse: Readable,
    height: int,
    width: int,
    sampler: SamplerConfig | None = None,
    on_window: Callable[[], None] | None = None,
) -> NDArray[np.float32]:
    """Stage 2 alone, on a coarse map that is there, with the sampler's minimum mapping unit.

    Args:
        predictor: The model.
        scene: The image.
        coarse: Class ids (1 band) or probabilities (K bands), as an image of its own.
        height: Rows of both.
        width: Columns of both.
        sampler: Sampler settings; default: the model's own.
        on_window: Called after every window.

    Returns:
        (K + 2, height, width): class probabilities, then uncertainty and disagreement, each in 0..1.

    Raises:
        UserError: `sampler.min_region` names a class that there is not.
    """
    settings, classes = sampler or predictor.spec.sampler, len(predictor.spec.classes)
    minimum = min_pixels(settings, predictor.spec.classes, predictor.spec.gsd)

    def refine(window: Window) -> NDArray[np.float32]:
        planes, known = coarse.read(window)
        if len(planes) == 1:  # class ids: beyond the image there is no class, as in a raster's windows
            planes = np.where(known, planes, IGNORE).astype(np.uint8)
        refined = predictor.refine(
            *_batch(scene.read(window)),
            planes if len(planes) == 1 else planes[None],
            np.array([[window.row, window.col]]),
            settings,
        )
        if on_window is not None:
            on_window()
        maps = refined.probabilities, refined.uncertainty[:, None], refined.disagreement[:, None]
        return np.concatenate(maps, 1)[0]

    blended = _blended(height, width, classes + 2, predictor.spec.inference.refiner, refine)
    if minimum:
        _, valid = scene.read(Window(0, 0, height, width))
        blended[:classes], blended[classes] = apply_min_region(blended[:classes], blended[classes], valid, minimum)
    return blended


def _batch(read: tuple[NDArray, NDArray[np.bool_]]) -> tuple[NDArray, NDArray[np.bool_]]:
    return read[0][None], read[1][None]


def _blended(
    height: int, width: int, channels: int, cut: WindowsConfig, predict: Callable[[Window], NDArray[np.float32]]
) -> NDArray[np.float32]:
    windows = WindowPass(height, width, cut.window, cut.overlap)
    out = np.zeros((channels, height, width), np.float32)

    def write(row: int, strip: NDArray[np.float32]) -> None:
        out[:, row : row + strip.shape[1]] = strip

    windows.begin(channels, write)
    for window in windows.windows:
        # In half precision, as values travel between processes: every executor blends the same numbers.
        windows.add(predict(window).astype(np.float16).astype(np.float32))
    windows.finish()
    return out
