"""Images that programs hand over in memory: their pixels, what is valid in them, and whether they fit the model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from idgbr.errors import UserError
from idgbr.raster.values import ValueRange, compare_pixels


def with_gaps(pixels: NDArray, masked: NDArray[np.bool_]) -> NDArray:
    """Pixels (B, H, W) as numbers, NaN where a pixel is masked in every band, as a nodata pixel of a file is.

    Args:
        pixels: of any numeric type.
        masked: (B, H, W), what the caller's array masks.

    Raises:
        UserError: no pixels, or no numbers.
    """
    if pixels.dtype.kind not in "buif" or not pixels.size:
        raise UserError(
            f"image: found {pixels.dtype} of shape {pixels.shape}; expected integers or reals, one pixel at least"
        )
    hidden = masked.all(axis=0)
    if not hidden.any():
        return pixels
    out = pixels.astype(np.result_type(pixels.dtype, np.float32))
    out[:, hidden] = np.nan
    return out


def refuse_other_scale(pixels: NDArray, learnt: ValueRange | None) -> None:
    """Refuses pixels (B, H, W) whose values are on another scale than the training imagery's, as the jobs do.

    Raises:
        UserError: band, values and the model's values.
    """
    valid = np.isfinite(pixels).all(axis=0)
    finding = compare_pixels("image", pixels, valid, learnt) if learnt and valid.any() else None
    if finding and finding.severity == "error":
        raise UserError(finding.message())


def mask_of(picture: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """What a masked array masks; nothing of any other picture."""
    return np.ma.getmaskarray(picture) if np.ma.isMaskedArray(picture) else np.zeros(shape, bool)
