"""Value ranges of the training imagery and of a scene: comparison, and mapping of one to the other.

A model of 8-bit imagery silently loses accuracy on 12-bit imagery, and a model of digital numbers on reflectances.
Quantiles of some windows from all over the scenes reveal such a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from idgbr.errors import UserError
from idgbr.raster.alpha import probe_windows
from idgbr.raster.findings import Finding
from idgbr.raster.grid import Grid, Window

OnValueRange = Literal["refuse", "match", "accept"]
"""Treatment of imagery whose value range differs from the training imagery's: refuse, map, or read it as it is."""

LEVELS = (0.005, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 0.995)
"""Levels of the stored quantiles."""
_LOW, _MIDDLE, _HIGH = 1, 4, 7
_PROBE = 64
_WINDOWS = 256
"""Windows of all scenes together, each of one being at least read at its corners."""

_INKS = ("cyan", "magenta", "yellow", "black")
_FAR = 1.0
"""Largest distance of a scene's median from the training imagery's range, in widths of that range."""
_WIDE, _NARROW = 4.0, 1 / 20
"""Largest and smallest allowed ratio of a scene's range to the training imagery's."""
_SHIFTED, _STRETCHED = 0.25, 2.0
"""Thresholds of a warning: shift of the median, ratio of the ranges."""


class Readable(Protocol):
    """A scene or a mosaic."""

    def grid(self) -> Grid: ...

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class ValueRange:
    """Values of imagery, band by band in the model's order.

    Attributes:
        dtype: the pixels' type; empty where it is unknown.
        quantiles: per band the values at `LEVELS`.
        colours: what the file says each band shows (red, nir, ...); empty where it says nothing.
    """

    dtype: str
    quantiles: tuple[tuple[float, ...], ...]
    colours: tuple[str, ...] = ()

    @classmethod
    def assumed(cls, mean: Sequence[float], std: Sequence[float]) -> ValueRange:
        """The range of normally distributed values: for models that keep no quantiles."""
        deviations = (-2.576, -2.054, -1.282, -0.674, 0.0, 0.674, 1.282, 2.054, 2.576)
        return cls("", tuple(tuple(m + d * s for d in deviations) for m, s in zip(mean, std, strict=True)))


def measure_range(scenes: Sequence[Readable], dtype: str, colours: Sequence[str] = ()) -> ValueRange | None:
    """The range of values of some scenes together; None where their windows hold no valid pixel.

    Args:
        scenes: what is read; a few windows of each, or of some of them where there are many.
        dtype: type of their pixels.
        colours: see `ValueRange`.
    """
    chosen = [scenes[i] for i in sorted(set(np.linspace(0, len(scenes) - 1, _WINDOWS // 4).astype(int)))]
    per_side = max(2, min(8, int((_WINDOWS / len(chosen)) ** 0.5)))
    parts = []
    for scene in chosen:
        grid = scene.grid()
        for window in probe_windows(grid.height, grid.width, _PROBE, per_side):
            try:
                pixels, valid = scene.read(window)
            except UserError:
                continue  # damaged; whoever maps it counts what cannot be read
            parts.append(pixels[:, valid].astype(np.float64))
    return range_of(parts, dtype, colours)


def range_of(parts: Sequence[NDArray], dtype: str, colours: Sequence[str] = ()) -> ValueRange | None:
    """The range of pixels in arrays (B, N); None where there are none."""
    if not sum(part.shape[1] for part in parts):
        return None
    quantiles = np.quantile(np.concatenate(parts, axis=1), LEVELS, axis=1).T
    return ValueRange(dtype, tuple(tuple(band) for band in quantiles.tolist()), tuple(colours))


def compare_ranges(path: str, found: ValueRange, learnt: ValueRange, on: OnValueRange, key: str) -> Finding | None:
    """Compare a scene's value range with the training imagery's; returns a finding, or None if they are similar.

    Args:
        path: path of the scene.
        found: value range of the scene.
        learnt: value range of the training imagery.
        on: treatment of a difference.
        key: the key or flag that sets the treatment.
    """
    if len(found.quantiles) != len(learnt.quantiles):
        return None  # another check's business
    apart = [_apart(own, known) for own, known in zip(found.quantiles, learnt.quantiles, strict=True)]
    shift, ratio, strange = (np.array(values) for values in zip(*apart, strict=True))
    worst = int(np.argmax(np.where(strange, np.inf, np.maximum(shift / _SHIFTED, ratio / _STRETCHED))))
    words = (
        f"band {worst + 1} holds {_words(found, worst)}, the model learnt {_words(learnt, worst)} (2 to 98 % of the "
        "pixels)"
    )
    if strange.any():
        if on == "match":
            return Finding(path, words, key, "its quantiles are mapped to the model's", "warning")
        if on == "accept":
            return Finding(path, f"{words}; the map is worth nothing if that is another scale", key, "", "warning")
        advice = "convert it to the model's scale, or map its quantiles with match; accept reads it as it is"
        return Finding(path, words, key, advice, "error")
    unlike = (shift > _SHIFTED) | (ratio > _STRETCHED)  # a part of a scene may well be duller than the whole
    if not unlike.any():
        return None
    figure = f"median off by {shift[worst]:.2f} of the learnt range, range {ratio[worst]:.2g} times as wide"
    advice = "another season or sensor costs accuracy; match maps the quantiles"
    return Finding(path, f"{words}: {figure}", key, advice, "warning")


def compare_pixels(path: str, pixels: NDArray, valid: NDArray[np.bool_], learnt: ValueRange) -> Finding | None:
    """Compare the valid (H, W) pixels of an image (B, H, W) in memory; see `compare_ranges`."""
    height, width = valid.shape
    parts = []
    for window in probe_windows(height, width, _PROBE, 8):
        rows, cols = window.slices()
        parts.append(pixels[:, rows, cols][:, valid[rows, cols]].astype(np.float64))
    found = range_of(parts, pixels.dtype.name)
    finding = found and compare_ranges(path, found, learnt, "refuse", "")
    advice = "convert it to the model's scale first, or map it by jobs/refine.py --value-range match"
    return replace(finding, advice=advice) if finding else None


def compare_colours(path: str, found: Sequence[str], learnt: ValueRange, key: str) -> Finding | None:
    """Finding about a file whose bands have other colours than the model's, or the same in another order, or None.

    Args:
        path: path of the file.
        found: colours of its bands according to their tags; empty if they have none.
        learnt: value range of the training imagery, with its colours.
        key: the key or flag to set.
    """
    printed = any(name in _INKS for name in found)
    if not found or tuple(found) == learnt.colours or not (learnt.colours or printed):
        return None
    expected = ", ".join(learnt.colours) or "colours as cameras see them"
    words = f"its bands show {', '.join(found)}; the model learnt {expected}"
    if printed:
        return Finding(path, words, key, "convert it to red, green and blue first", "error")
    swapped = sorted(found) == sorted(learnt.colours) and len(set(found)) == len(found)
    return Finding(path, words, key, "name the bands in the model's order", "error" if swapped else "warning")


@dataclass(frozen=True)
class BandMaps:
    """Piecewise linear maps of values, band by band: quantiles of one range to those of another.

    Attributes:
        source: per band increasing values.
        target: what they become.
    """

    source: tuple[tuple[float, ...], ...]
    target: tuple[tuple[float, ...], ...]

    @classmethod
    def between(cls, found: ValueRange, learnt: ValueRange) -> BandMaps:
        """Maps a range to another one; values beyond its outermost quantiles become the outermost ones."""
        return cls(tuple(_increasing(band) for band in found.quantiles), learnt.quantiles)

    def apply(self, pixels: NDArray) -> NDArray[np.float32]:
        """Pixels (B, H, W) mapped."""
        bands = zip(pixels, self.source, self.target, strict=True)
        return np.stack([np.interp(band, source, target) for band, source, target in bands]).astype(np.float32)


def _increasing(values: Sequence[float]) -> tuple[float, ...]:
    """The values, each a little larger than the one before where they are equal, as interpolation needs."""
    step = 1e-6 * max(1.0, abs(values[-1] - values[0]))
    return tuple(value + i * step for i, value in enumerate(np.maximum.accumulate(values).tolist()))


def _apart(found: Sequence[float], learnt: Sequence[float]) -> tuple[float, float, bool]:
    """Shift of the median in learnt ranges, ratio of the ranges, and whether that is another scale."""
    width = max(learnt[_HIGH] - learnt[_LOW], 1e-9)
    own, middle = found[_HIGH] - found[_LOW], found[_MIDDLE]
    shift, ratio = abs(middle - learnt[_MIDDLE]) / width, own / width
    beyond = max(middle - learnt[_HIGH], learnt[_LOW] - middle) / width
    # A dull scene inside of what was learnt is still one of its kind; numbers below all that was learnt are not.
    tiny = ratio < _NARROW and (found[_HIGH] < learnt[_LOW] or found[_LOW] > learnt[_HIGH])
    return shift, ratio, bool(beyond > _FAR or ratio > _WIDE or tiny)


def _words(values: ValueRange, band: int) -> str:
    low, high = values.quantiles[band][_LOW], values.quantiles[band][_HIGH]
    return f"{low:.4g} to {high:.4g}" + (f" ({values.dtype})" if values.dtype else "")
