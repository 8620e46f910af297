"""Coarse vote and guard: keep the coarse map where refinement is unreliable."""

from __future__ import annotations

import torch
from torch import Tensor

from idgbr.boundaries import near_boundary
from idgbr.config.models import SamplerConfig


def voted(probabilities: Tensor, coarse: Tensor, weight: float) -> Tensor:
    """Class probabilities (N, K, H, W) as a weighted mean of the samples' probabilities and the coarse map.

    Args:
        probabilities: (N, K, H, W), mean over the samples.
        coarse: (N, H, W) class ids or (N, K, H, W) probabilities.
        weight: 1 gives the coarse map as much weight as all samples together.
    """
    if not weight:
        return probabilities
    return (probabilities + weight * _as_planes(coarse, probabilities.shape[1])) / (1 + weight)


def guarded(probabilities: Tensor, disagreement: Tensor, coarse: Tensor, settings: SamplerConfig) -> Tensor:
    """Refined probabilities, replaced by the coarse map where they are unreliable.

    Two rules, both off by default: the coarse map is kept where the samples disagree, and far from its boundaries,
    where refinement would change whole areas and not a boundary.

    Args:
        probabilities: (N, K, H, W), the refined map.
        disagreement: (N, H, W), see `Refined`.
        coarse: (N, H, W) class ids or (N, K, H, W) probabilities. Where ids are IGNORE, the refined map is kept.
        settings: The rules.
    """
    ids = coarse if coarse.ndim == 3 else coarse.argmax(1)
    keep = torch.zeros_like(ids, dtype=torch.bool)
    if settings.keep_disagreement < 1:
        keep |= disagreement > settings.keep_disagreement
    if settings.keep_beyond:
        keep |= ~near_boundary(ids, settings.keep_beyond)
    planes = _as_planes(coarse, probabilities.shape[1])
    keep &= planes.sum(1) > 0
    return torch.where(keep.unsqueeze(1), planes.to(probabilities.dtype), probabilities)


def _as_planes(coarse: Tensor, classes: int) -> Tensor:
    return coarse if coarse.ndim == 4 else one_hot(coarse, classes)


def one_hot(ids: Tensor, classes: int) -> Tensor:
    """Class ids (N, H, W) to (N, K, H, W) float; ignored pixels are all zero."""
    planes = torch.arange(classes, device=ids.device).view(1, -1, 1, 1)
    return (ids.unsqueeze(1) == planes).float()
