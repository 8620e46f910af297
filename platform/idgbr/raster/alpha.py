"""Whether a band that is tagged alpha is a mask, or imagery that a writer tagged so (near infrared, mostly)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from idgbr.raster.grid import Window

Alpha = Literal["auto", "mask", "band", "ignore"]
"""What a band tagged alpha is: what it looks like, validity, a band like others, or neither."""

_BETWEEN = 0.05
"""Share of pixels of a mask that may lie between its two values: soft edges."""


def probe_windows(height: int, width: int, size: int = 128, per_side: int = 4) -> Iterator[Window]:
    """Windows all over a raster, corners among them: the same ones in every process."""
    rows, cols = _starts(height, size, per_side), _starts(width, size, per_side)
    return (Window(row, col, min(size, height), min(size, width)) for row in rows for col in cols)


def _starts(length: int, size: int, count: int) -> list[int]:
    return sorted({round(at) for at in np.linspace(0, max(0, length - size), count)})


def looks_like_mask(samples: Iterable[np.ndarray]) -> bool:
    """Whether values of an alpha band say valid or not: two of them at the most, but for a thin ramp between.

    Args:
        samples: values of the band, of any shape.
    """
    values, counts = np.unique(np.concatenate([sample.ravel() for sample in samples]), return_counts=True)
    return len(values) <= 2 or bool(counts[1:-1].sum() <= _BETWEEN * counts.sum())
