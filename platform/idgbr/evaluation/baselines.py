"""Classical ways to refine a coarse map along an image: the reference for a learned refiner.

Each works on image and coarse map alone, in overlapping tiles, so that memory is bounded by the tile.
The defaults are the best of a small grid on training ground of an aerial and a drone scene (smoothed, noisy labels
stood in for coarse maps); larger windows and bands lost more than they gained.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from idgbr import IGNORE
from idgbr.errors import UserError


@dataclass(frozen=True)
class GuidedFilter:
    """He et al. (TPAMI 2013), colour guide, on every class's membership; the largest wins."""

    radius: int = 6
    """Radius of the window in pixels."""
    eps: float = 1e-2
    """Regularisation, for a guide in 0..1."""
    tile: int = 1024
    margin: int = 32


@dataclass(frozen=True)
class GrabCut:
    """Rother et al. (2004), one class against the rest, in a band around the coarse boundaries.

    Colours are modelled per tile. Where several classes claim a pixel of the band, or none, it keeps its coarse class
    if that is among them, else the first claim stands.
    """

    band: int = 2
    """Half width in pixels of the band that may change."""
    iterations: int = 1
    tile: int = 384
    margin: int = 32


@dataclass(frozen=True)
class DenseCRF:
    """Krähenbühl & Koltun (2011), fully connected, Gaussian edge potentials."""

    confidence: float = 0.9
    """Probability of the coarse label, where the coarse map has no probabilities."""
    smooth_sxy: float = 3.0
    smooth_weight: float = 3.0
    colour_sxy: float = 15.0
    colour_srgb: float = 10.0
    colour_weight: float = 5.0
    iterations: int = 5
    tile: int = 512
    margin: int = 48


def available(methods: Sequence[str]) -> list[str]:
    """The baselines that can run here: DenseCRF needs pydensecrf2.

    Raises:
        UserError: a name is no baseline.
    """
    unknown = [name for name in methods if name not in BASELINES]
    if unknown:
        raise UserError(f"evaluation.baselines: {unknown[0]!r} is none of {', '.join(BASELINES)}")
    crf = importlib.util.find_spec("pydensecrf") is not None
    return [name for name in methods if name != "densecrf" or crf]


def to_rgb(image: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """First three bands stretched to 8 bit between their 2nd and 98th percentile; (B, H, W) -> (H, W, 3) uint8.

    A one-band image becomes grey. Pixels outside `valid` (H, W) are 0 and leave the percentiles alone.
    """
    planes = []
    for band in image[:3] if len(image) >= 3 else np.repeat(image[:1], 3, axis=0):
        values = band if valid is None else band[valid]
        low, high = np.percentile(values[:: max(1, values.size // 1_000_000)], [2, 98]) if values.size else (0.0, 1.0)
        scaled = (band.astype(np.float32) - low) * (255.0 / max(high - low, 1e-6))
        planes.append(np.clip(scaled, 0, 255).astype(np.uint8))
    rgb = np.stack(planes, axis=-1)
    if valid is not None:
        rgb[~valid] = 0
    return rgb


def refine_classically(
    method: str,
    image: np.ndarray,
    coarse: np.ndarray,
    classes: int,
    valid: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
) -> np.ndarray:
    """Refine a coarse map with one of the classical methods, at its module-level parameters.

    Args:
        method: guided_filter, grabcut or densecrf.
        image: (B, H, W), any dtype.
        coarse: (H, W) uint8 class ids, IGNORE where there is none.
        classes: number of classes K.
        valid: (H, W) bool, where the image holds data; default everywhere.
        probabilities: (K, H, W) float in 0..1, used instead of the ids by guided filter and DenseCRF.

    Returns:
        (H, W) uint8 class ids; IGNORE stays IGNORE.

    Raises:
        UserError: no such method, or its package is not installed.
    """
    if method not in available([method]):
        raise UserError("evaluation.baselines: densecrf needs pydensecrf2, install it or take densecrf off the list")
    rgb = to_rgb(image, valid)
    return BASELINES[method](rgb, coarse, classes, probabilities)


def guided_filter(
    rgb: np.ndarray,
    coarse: np.ndarray,
    classes: int,
    probabilities: np.ndarray | None = None,
    params: GuidedFilter = GuidedFilter(),
) -> np.ndarray:
    """Smooth every class's membership along the rgb (H, W, 3) uint8 and take the largest; (H, W) uint8."""

    def one(area: tuple[slice, slice]) -> np.ndarray:
        guide = rgb[area].astype(np.float32) / 255.0
        soft = _memberships(coarse, classes, probabilities, area)
        smooth = [cv2.ximgproc.guidedFilter(guide, plane, params.radius, params.eps) for plane in soft]
        return np.argmax(smooth, axis=0).astype(np.uint8)

    return _tiled(coarse, one, params.tile, params.margin)


def grabcut(
    rgb: np.ndarray,
    coarse: np.ndarray,
    classes: int,
    probabilities: np.ndarray | None = None,
    params: GrabCut = GrabCut(),
) -> np.ndarray:
    """Recut the band around the coarse boundaries of the rgb (H, W, 3) uint8 class by class; (H, W) uint8.

    `probabilities` are not used: GrabCut starts from hard labels.
    """

    def one(area: tuple[slice, slice]) -> np.ndarray:
        return _grabcut_tile(np.ascontiguousarray(rgb[area]), coarse[area], classes, params)

    return _tiled(coarse, one, params.tile, params.margin)


def densecrf(
    rgb: np.ndarray,
    coarse: np.ndarray,
    classes: int,
    probabilities: np.ndarray | None = None,
    params: DenseCRF = DenseCRF(),
) -> np.ndarray:
    """Mean-field inference of a fully connected CRF over the rgb (H, W, 3) uint8; (H, W) uint8."""
    from pydensecrf.densecrf import DIAG_KERNEL, NORMALIZE_SYMMETRIC, DenseCRF2D

    def one(area: tuple[slice, slice]) -> np.ndarray:
        soft = _memberships(coarse, classes, probabilities, area)
        if probabilities is None:
            soft = soft * params.confidence + (1 - soft) * (1 - params.confidence) / (classes - 1)
        height, width = soft.shape[1:]
        field = DenseCRF2D(width, height, classes)
        field.setUnaryEnergy(np.ascontiguousarray(-np.log(np.clip(soft, 1e-4, 1)).reshape(classes, -1), np.float32))
        field.addPairwiseGaussian(params.smooth_sxy, params.smooth_weight, DIAG_KERNEL, NORMALIZE_SYMMETRIC)
        field.addPairwiseBilateral(
            params.colour_sxy,
            params.colour_srgb,
            np.ascontiguousarray(rgb[area]),
            params.colour_weight,
            DIAG_KERNEL,
            NORMALIZE_SYMMETRIC,
        )
        return np.asarray(field.inference(params.iterations)).argmax(0).reshape(height, width).astype(np.uint8)

    return _tiled(coarse, one, params.tile, params.margin)


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray, int, np.ndarray | None], np.ndarray]] = {
    "guided_filter": guided_filter,
    "grabcut": grabcut,
    "densecrf": densecrf,
}
"""The methods by their name in the configuration."""


def _memberships(
    coarse: np.ndarray, classes: int, probabilities: np.ndarray | None, area: tuple[slice, slice]
) -> np.ndarray:
    if probabilities is not None:
        return np.ascontiguousarray(probabilities[(slice(None), *area)], np.float32)
    return (coarse[area][None] == np.arange(classes, dtype=np.uint8)[:, None, None]).astype(np.float32)


def _grabcut_tile(rgb: np.ndarray, coarse: np.ndarray, classes: int, params: GrabCut) -> np.ndarray:
    present = [c for c in range(classes) if (coarse == c).any()]
    square = np.ones((3, 3), np.uint8)
    edge = cv2.morphologyEx(coarse, cv2.MORPH_GRADIENT, square) > 0
    band = cv2.dilate(edge.astype(np.uint8), square, iterations=max(params.band - 1, 0)) > 0
    if len(present) < 2:
        return coarse
    claimed = np.full(coarse.shape, IGNORE, np.uint8)
    kept = np.zeros(coarse.shape, bool)
    for c in present:
        ours = coarse == c
        # Without sure pixels on both sides there are no colours to tell apart.
        if min((ours & ~band).sum(), (~ours & ~band).sum()) < 16:
            kept |= ours
            continue
        mask = np.where(ours, cv2.GC_FGD, cv2.GC_BGD).astype(np.uint8)
        mask[band] = np.where(ours[band], cv2.GC_PR_FGD, cv2.GC_PR_BGD)
        # Tens of pixels around the class are enough for the cut; the rest of the tile would only cost time.
        rows, columns = (np.flatnonzero(ours.any(axis)) for axis in (1, 0))
        reach = 4 * params.band
        box = tuple(slice(max(0, i[0] - reach), i[-1] + reach + 1) for i in (rows, columns))
        part = np.ascontiguousarray(mask[box])
        sure = part[~band[box]]
        if min((sure == cv2.GC_FGD).sum(), (sure == cv2.GC_BGD).sum()) < 16:
            kept |= ours
            continue
        cv2.setRNGSeed(0)
        cut = np.ascontiguousarray(rgb[box])
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(cut, part, (0, 0, 1, 1), models[0], models[1], params.iterations, cv2.GC_INIT_WITH_MASK)
        claims = np.zeros(coarse.shape, bool)
        claims[box] = (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD)
        kept |= claims & ours
        claimed[claims & (claimed == IGNORE)] = c
    return np.where(kept | ~band | (claimed == IGNORE), coarse, claimed)


def _tiled(coarse: np.ndarray, one: Callable[[tuple[slice, slice]], np.ndarray], tile: int, margin: int) -> np.ndarray:
    """Run `one` on tiles read with a margin, keep their cores; tiles with a single class or none stay as they are."""
    out = coarse.copy()
    for core, area, inner in _tiles((coarse.shape[0], coarse.shape[1]), tile, margin):
        labels = coarse[area]
        ids = labels[labels != IGNORE]
        if ids.size and ids.min() != ids.max():
            out[core] = one(area)[inner]
    out[coarse == IGNORE] = IGNORE
    return out


def _tiles(
    shape: tuple[int, int], tile: int, margin: int
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], tuple[slice, slice]]]:
    for row in range(0, shape[0], tile):
        for column in range(0, shape[1], tile):
            starts, stops = (row, column), (min(row + tile, shape[0]), min(column + tile, shape[1]))
            lows = tuple(max(0, s - margin) for s in starts)
            highs = tuple(min(n, s + margin) for n, s in zip(shape, stops, strict=True))
            core, area, inner = (
                (slice(a[0], b[0]), slice(a[1], b[1]))
                for a, b in (
                    (starts, stops),
                    (lows, highs),
                    (
                        tuple(s - low for s, low in zip(starts, lows, strict=True)),
                        tuple(s - low for s, low in zip(stops, lows, strict=True)),
                    ),
                )
            )
            yield core, area, inner
