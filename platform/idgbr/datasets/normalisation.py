"""Per-band figures of the training imagery: measured in pieces, merged, and applied on the model's worker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from idgbr.errors import UserError


@dataclass(frozen=True)
class BandStats:
    """Count, mean and sum of squared deviations per band; two of them merge exactly.

    Merging follows Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample
    variances", so pieces can be measured anywhere and in any number.
    """

    count: tuple[int, ...]
    mean: tuple[float, ...]
    m2: tuple[float, ...]

    @classmethod
    def empty(cls, bands: int) -> BandStats:
        """Stats of no pixel at all: the neutral element of `merge`."""
        return cls((0,) * bands, (0.0,) * bands, (0.0,) * bands)

    @classmethod
    def of(cls, image: NDArray, valid: NDArray[np.bool_]) -> BandStats:
        """Stats of one image (B, H, W) over its valid (H, W) pixels."""
        pixels = image[:, valid].astype(np.float64)
        count = pixels.shape[1]
        if not count:
            return cls.empty(image.shape[0])
        mean = pixels.mean(axis=1)
        m2 = ((pixels - mean[:, None]) ** 2).sum(axis=1)
        return cls((count,) * len(mean), tuple(mean.tolist()), tuple(m2.tolist()))

    def merge(self, other: BandStats) -> BandStats:
        """Stats of both sets of pixels together."""
        if len(self.count) != len(other.count):
            raise UserError(
                f"imagery with {len(self.count)} and with {len(other.count)} bands in one data set; "
                "every image must have the same bands (see data.bands)"
            )
        n_a, n_b = np.asarray(self.count, float), np.asarray(other.count, float)
        total = n_a + n_b
        share = np.divide(n_b, total, out=np.zeros_like(total), where=total > 0)
        delta = np.asarray(other.mean) - np.asarray(self.mean)
        mean = np.asarray(self.mean) + delta * share
        m2 = np.asarray(self.m2) + np.asarray(other.m2) + delta**2 * n_a * share
        return BandStats(tuple(int(n) for n in total), tuple(mean.tolist()), tuple(m2.tolist()))

    __add__ = merge

    @property
    def std(self) -> tuple[float, ...]:
        """Population standard deviation per band."""
        return tuple(float(np.sqrt(m2 / n)) if n else 0.0 for m2, n in zip(self.m2, self.count, strict=True))


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per band, in the imagery's own units; stored with the model."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_stats(cls, stats: Iterable[BandStats]) -> Normalisation:
        """Normalisation over all given pieces; a constant band gets a deviation of 1, so it becomes 0 and no NaN.

        Raises:
            UserError: there is no piece, or no valid pixel in any.
        """
        pieces = list(stats)
        if not pieces:
            raise UserError("no training region to measure the normalisation on")
        total = reduce(BandStats.merge, pieces)
        if not min(total.count):
            raise UserError("no valid pixel in the training imagery: every pixel is nodata, transparent or NaN")
        return cls(total.mean, tuple(s if s > 1e-12 else 1.0 for s in total.std))

    def apply(self, images: NDArray, valid: NDArray) -> NDArray[np.float32]:
        """Images (N, B, H, W) of any dtype and valid (N, H, W) to float32, zero (the mean) where not valid.

        Raises:
            UserError: the band count is not the one measured.
        """
        if images.shape[1] != len(self.mean):
            raise UserError(f"an image has {images.shape[1]} bands; the model was trained on {len(self.mean)}")
        mean = np.asarray(self.mean, np.float32)[:, None, None]
        scale = (1.0 / np.asarray(self.std)).astype(np.float32)[:, None, None]
        out = (images.astype(np.float32) - mean) * scale
        keep = np.broadcast_to(valid.astype(bool)[:, None], out.shape)
        return np.where(keep, out, np.float32(0))


IMAGENET = Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""Figures of ImageNet's pictures, for red, green and blue in 0..255, as torchvision's and timm's models expect."""
