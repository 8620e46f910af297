"""Never worse: where refinement is not to be trusted, the coarse map stays."""

from __future__ import annotations

import torch
from torch import Tensor

from idgbr.boundaries import near_boundary
from idgbr.config.tree import SamplerConfig


def guarded(probabilities: Tensor, disagreement: Tensor, coarse: Tensor, settings: SamplerConfig) -> Tensor:
    """Refined probabilities, kept from where they are not to be trusted.

    Three rules, each off by default: the coarse map votes beside the samples; it stays where the samples disagree;
    it stays far from its own boundaries, where what refinement rewrites is an opinion and no boundary.

    Args:
        probabilities: (N, K, H, W), mean over the samples.
        disagreement: (N, H, W), see `Refined`.
        coarse: (N, H, W) class ids or (N, K, H, W) probabilities. Where ids hold IGNORE, refinement stands.
        settings: The rules.
    """
    ids = coarse if coarse.ndim == 3 else coarse.argmax(1)
    vote = coarse if coarse.ndim == 4 else one_hot(coarse, probabilities.shape[1])
    if settings.coarse_vote:
        probabilities = (probabilities + settings.coarse_vote * vote) / (1 + settings.coarse_vote)
    keep = torch.zeros_like(ids, dtype=torch.bool)
    if settings.keep_disagreement < 1:
        keep |= disagreement > settings.keep_disagreement
    if settings.keep_beyond:
        keep |= ~near_boundary(ids, settings.keep_beyond)
    keep &= vote.sum(1) > 0
    return torch.where(keep.unsqueeze(1), vote.to(probabilities.dtype), probabilities)


def one_hot(ids: Tensor, classes: int) -> Tensor:
    """Class ids (N, H, W) to (N, K, H, W) float; ignored pixels are all zero."""
    planes = torch.arange(classes, device=ids.device).view(1, -1, 1, 1)
    return (ids.unsqueeze(1) == planes).float()
