"""The eight flips and quarter turns of a square, on the last two axes of a tensor."""

from __future__ import annotations

import torch
from torch import Tensor


def dihedral(x: Tensor, k: int) -> Tensor:
    """Turn x (..., H, W) by k % 4 quarter turns, after mirroring its columns where k >= 4."""
    if k >= 4:
        x = x.flip(-1)
    return torch.rot90(x, k % 4, (-2, -1)) if k % 4 else x


def inverse_dihedral(x: Tensor, k: int) -> Tensor:
    """Undo `dihedral` of the same k."""
    if k % 4:
        x = torch.rot90(x, -(k % 4), (-2, -1))
    return x.flip(-1) if k >= 4 else x
