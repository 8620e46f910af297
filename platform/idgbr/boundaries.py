"""Where a label map changes, as torch tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from idgbr import IGNORE


def near_boundary(label: Tensor, reach: int) -> Tensor:
    """Pixels within `reach` of a change of label, (N, H, W) bool; a change to or from IGNORE is none."""
    size = 2 * reach + 1
    planes = label.float().unsqueeze(1)
    low = torch.where(planes == IGNORE, torch.inf, planes)
    high = torch.where(planes == IGNORE, -torch.inf, planes)
    highest = functional.max_pool2d(high, size, 1, reach)
    lowest = -functional.max_pool2d(-low, size, 1, reach)
    return (highest > lowest).squeeze(1)
