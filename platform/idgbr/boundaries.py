"""Where a label map changes, as torch tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from idgbr import IGNORE


def near_boundary(label: Tensor, reach: int) -> Tensor:
    """Pixels within `reach` of a change of label, (N, H, W) bool; a change to or from IGNORE is none."""
    planes = label.float()
    low = torch.where(planes == IGNORE, torch.inf, planes)
    high = torch.where(planes == IGNORE, -torch.inf, planes)
    return _highest(high, reach) > -_highest(-low, reach)


def _highest(planes: Tensor, reach: int) -> Tensor:
    """The highest value (N, H, W) within a square of `reach` pixels either way: along rows, then along columns."""
    size = 2 * reach + 1
    along = functional.max_pool2d(planes.unsqueeze(1), (1, size), 1, (0, reach))
    return functional.max_pool2d(along, (size, 1), 1, (reach, 0)).squeeze(1)
