"""One call for people: an image and a coarse map in memory to a refined map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress

from idgbr import IGNORE
from idgbr.config.load import validate
from idgbr.config.models import SamplerConfig
from idgbr.errors import UserError
from idgbr.inference.arrays import mask_of, refuse_other_scale, with_gaps
from idgbr.inference.predictor import Predictor
from idgbr.inference.whole import ArrayScene, refine_whole
from idgbr.raster.windows import plan_windows

_ROUNDED = 0.01
"""By how much a probability may exceed one."""
Picture = NDArray | torch.Tensor | Image.Image
"""What images and coarse maps may come as."""


@dataclass(frozen=True)
class RefinedMap:
    """A refined map.

    Attributes:
        ids: (H, W) uint8 class ids, IGNORE where the image holds no finite value.
        probabilities: (K, H, W) float32; the likeliest class is `ids`.
        uncertainty: (H, W) float32 in 0..1: one minus the probability of the likeliest class, mean of the samples; at
            least one minus the probability of the class that a region below `min_region` went to.
        disagreement: (H, W) float32 in 0..1: how much the samples differ from each other.
    """

    ids: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    disagreement: NDArray[np.float32]


def refine(
    image: Picture,
    coarse: Picture,
    *,
    model: str | Path | Predictor,
    steps: int | None = None,
    samples: int | None = None,
    progress: bool = True,
    **sampler: Any,
) -> RefinedMap:
    """Refine a coarse map of any size, in overlapping windows.

    Args:
        image: (H, W, B) or (B, H, W), in the units of the imagery the model was trained on; whichever fits the map.
            NaN, and what a masked array masks in every band, is nodata.
        coarse: (H, W) class ids, 255 where there is none; or (K, H, W) probabilities.
        model: Model folder, or a loaded one.
        steps: Sampling steps; default, here and below: the model's own.
        samples: Samples that are averaged.
        progress: Show a progress bar.
        sampler: Any other key of `SamplerConfig`, such as seed or min_region.

    Raises:
        UserError: Sizes, bands, values or classes do not fit the model or each other, or a key is unknown.

    Example:
        >>> refined = refine(Image.open("tile.png"), Image.open("coarse.png"), model="model", steps=4, samples=4)
        >>> Image.fromarray(refined.ids).save("refined.png")
    """
    predictor = model if isinstance(model, Predictor) else Predictor(model, parts=("refiner",))
    changes = {"steps": steps, "samples": samples, **sampler}
    chosen = {key: value for key, value in changes.items() if value is not None}
    settings = validate(SamplerConfig, {**predictor.spec.sampler.model_dump(), **chosen}, "refine(...)")
    if np.ma.isMaskedArray(coarse) and coarse.dtype.kind in "ui":
        coarse = np.ma.filled(coarse.astype(np.int64), IGNORE)
    planes = _coarse(_array(coarse), len(predictor.spec.classes))
    height, width = planes.shape[-2:]
    whole, bands = _array(image), len(predictor.spec.normalisation.mean)
    pixels = _image(whole, height, width, bands)
    pixels = with_gaps(pixels, _image(mask_of(image, whole.shape), height, width, bands))
    refuse_other_scale(pixels, predictor.spec.learnt_values)
    cut = predictor.spec.inference.refiner
    windows = len(plan_windows(height, width, cut.window, cut.overlap))
    with Progress(disable=not progress, transient=True) as bar:
        task = bar.add_task("refining", total=windows)
        scene = ArrayScene(pixels)
        blended = refine_whole(predictor, scene, ArrayScene(planes), height, width, settings, lambda: bar.advance(task))
    valid = np.isfinite(pixels).all(0)
    ids = np.where(valid, blended[:-2].argmax(0), IGNORE).astype(np.uint8)
    probabilities = blended[:-2] / blended[:-2].sum(0).clip(min=1e-6)  # of windows in half precision
    return RefinedMap(ids, probabilities, blended[-2], blended[-1])


def _array(picture: Picture) -> NDArray:
    if isinstance(picture, torch.Tensor):
        held = picture.detach().cpu()
        return (held.float() if held.dtype == torch.bfloat16 else held).numpy()  # numpy has no bfloat16
    return np.asarray(picture)


def _coarse(coarse: NDArray, classes: int) -> NDArray:
    """As an image: (1, H, W) uint8 ids or (K, H, W) probabilities."""
    if coarse.ndim == 2 and np.issubdtype(coarse.dtype, np.integer):
        outside = (coarse < 0) | (coarse > IGNORE)
        if outside.any():
            raise UserError(f"coarse map: class id {int(coarse[outside][0])}; expected 0 to {classes - 1}, or {IGNORE}")
        return coarse[None].astype(np.uint8)
    if coarse.ndim == 3 and len(coarse) == classes and np.issubdtype(coarse.dtype, np.floating):
        # NaN is no probability, either; half precision may sum to a little over one.
        if not bool(((coarse >= 0) & (coarse <= 1 + _ROUNDED)).all()):
            raise UserError(
                f"coarse map: found values from {np.nanmin(coarse):.3g} to {np.nanmax(coarse):.3g} (NaN: "
                f"{np.isnan(coarse).any()}); expected probabilities 0 to 1, or class ids (scores need a softmax first)"
            )
        return coarse.astype(np.float32)
    raise UserError(
        f"coarse map: found {coarse.dtype} of shape {coarse.shape}; expected whole numbers (rows, columns), or "
        f"floating point numbers ({classes}, rows, columns)"
    )


def _image(image: NDArray, height: int, width: int, bands: int) -> NDArray:
    if image.ndim == 2:
        image = image[None]
    if image.shape == (bands, height, width):
        return image
    if image.shape == (height, width, bands):
        return np.ascontiguousarray(image.transpose(2, 0, 1))
    raise UserError(
        f"image: found shape {image.shape}; the coarse map has {height} x {width} px and the model {bands} bands, so "
        f"expected ({height}, {width}, {bands}) or ({bands}, {height}, {width})"
    )
