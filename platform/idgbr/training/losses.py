"""Losses as sums and weights, so that the global mean does not depend on how workers split a batch.

Ignored pixels have weight zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from idgbr import IGNORE


def cross_entropy_sum(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weighted sum of the cross-entropy, and the sum of the weights of all pixels with a label.

    Args:
        logits: (N, K, H, W).
        label: (N, H, W) class ids, IGNORE where there is none.
        weight: (N, H, W) weight per pixel; default 1.
    """
    loss = functional.cross_entropy(logits.float(), label, ignore_index=IGNORE, reduction="none")
    counts = (label != IGNORE).to(loss.dtype)
    if weight is not None:
        counts = counts * weight
    return (loss * counts).sum(), counts.sum()


def dice(logits: Tensor, label: Tensor) -> Tensor:
    """Soft Dice loss in 0..1, mean over the classes present; 0 if no pixel has a label.

    Args:
        logits: (N, K, H, W).
        label: (N, H, W) class ids, IGNORE where there is none.
    """
    valid = label != IGNORE
    probabilities = logits.float().softmax(1) * valid.unsqueeze(1)
    truth = functional.one_hot(label.masked_fill(~valid, 0), logits.shape[1]).movedim(-1, 1) * valid.unsqueeze(1)
    overlap = (probabilities * truth).sum((0, 2, 3))
    size = (probabilities + truth).sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    share = 1 - 2 * overlap / size.clamp(min=1e-6)
    return (share * present).sum() / present.sum().clamp(min=1)


def dice_sum(logits: Tensor, label: Tensor) -> Tensor:
    """Sum over windows of `dice` times the number of labelled pixels; does not depend on how workers split a batch."""
    windows = zip(logits.split(1), label.split(1), strict=True)
    return torch.stack([(one != IGNORE).sum() * dice(own, one) for own, one in windows]).sum()
