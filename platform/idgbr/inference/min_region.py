"""The sampler's minimum mapping unit, applied to refined maps: in memory, or window by window to planes on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from idgbr import IGNORE
from idgbr.config.data import ClassSpec
from idgbr.config.models import SamplerConfig
from idgbr.errors import UserError
from idgbr.inference.planes import BAND_SCALE, as_probabilities, quantised
from idgbr.raster.grid import Window
from idgbr.raster.sieve import Planes, sieve, sieve_window

_AHEAD = np.float32(1 + 1e-5)
"""By so much the new class's probability exceeds the highest one: enough to be the likeliest after rounding."""

MinPixels = tuple[float, ...]
"""Pixels of the smallest region that stays, by class; empty: no minimum."""


def min_pixels(sampler: SamplerConfig, classes: Sequence[ClassSpec], gsd: float | None) -> MinPixels:
    """`sampler.min_region` in pixels.

    Args:
        sampler: The sampler.
        classes: The classes of the map.
        gsd: The model's ground sample distance in metres. Imagery is read at it, or taken to have it, so a model gives
            one map whether or not a file says its scale. None: the model was trained on imagery without scale, and
            `min_region` counts pixels.

    Raises:
        UserError: `min_region` names a class that there is not.
    """
    minimum = sampler.min_region
    names = [spec.name for spec in classes]
    if isinstance(minimum, Mapping):
        unknown = [name for name in minimum if name not in names]
        if unknown:
            raise UserError(f"sampler.min_region: no class {unknown[0]!r}; expected some of: {', '.join(names)}")
        areas = [minimum.get(name, 0.0) for name in names]
    else:
        areas = [minimum or 0.0] * len(names)
    pixel = gsd**2 if gsd else 1.0
    return tuple(area / pixel for area in areas) if any(areas) else ()


def apply_min_region(
    probabilities: NDArray[np.float32], uncertainty: NDArray[np.float32], valid: NDArray[np.bool_], minimum: MinPixels
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A refined map in memory without its small regions.

    Args:
        probabilities: (K, H, W).
        uncertainty: (H, W).
        valid: (H, W).
        minimum: See `min_pixels`.

    Returns:
        Probabilities, the likeliest class of which is the map, and uncertainty.
    """
    if not minimum:
        return probabilities, uncertainty
    ids = np.where(valid, probabilities.argmax(0), IGNORE).astype(np.uint8)
    return _following(probabilities, uncertainty, ids, sieve(ids, quantised(probabilities), minimum))


def sieved_planes(
    read: Callable[[Window], NDArray[np.uint8]], window: Window, extent: Window, minimum: MinPixels
) -> NDArray[np.float32]:
    """A window of a refined map without its small regions, out of what `planes.to_refined_planes` made of the whole.

    Args:
        read: Planes (2 + K, h, w) of any window within the map.
        window: The window.
        extent: The whole map.
        minimum: See `min_pixels`.

    Returns:
        (K + 2, h, w): probabilities, the likeliest class of which is the map, uncertainty, and 1 where valid.
    """

    def ids_and_scores(part: Window) -> Planes:
        planes = read(part)
        return planes[0], planes[1:-1]

    sieved = sieve_window(ids_and_scores, window, extent, minimum)
    planes = read(window)
    uncertainty = planes[-1].astype(np.float32) / np.float32(BAND_SCALE)
    probabilities, uncertainty = _following(as_probabilities(planes[1:-1]), uncertainty, planes[0], sieved)
    return np.concatenate([probabilities, uncertainty[None], (sieved != IGNORE)[None]], dtype=np.float32)


def _following(
    probabilities: NDArray[np.float32],
    uncertainty: NDArray[np.float32],
    ids: NDArray[np.uint8],
    sieved: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities and uncertainty that follow the sieved map.

    A pixel's new class gets as much probability as the likeliest one had, and all of them are scaled to sum to one;
    the uncertainty is at least what that leaves.
    """
    # Rounded probabilities may name another class than ids that were made before rounding.
    at = np.flatnonzero((sieved != IGNORE) & (probabilities.argmax(0) != sieved))
    planes, doubts = probabilities.reshape(len(probabilities), -1).copy(), uncertainty.ravel().copy()
    columns, new, index = planes[:, at], sieved.ravel()[at], np.arange(at.size)
    columns[new, index] = columns.max(0, initial=0) * _AHEAD
    columns /= columns.sum(0).clip(min=1e-12)
    planes[:, at] = columns
    doubt = np.where(new != ids.ravel()[at], 1 - columns[new, index], 0)
    doubts[at] = np.maximum(doubts[at], doubt)
    return planes.reshape(probabilities.shape), doubts.reshape(uncertainty.shape)
