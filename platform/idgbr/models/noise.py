"""Noise as a function of scene coordinates: a counter-based random generator over absolute scene pixels.

A value depends only on seed, sample, plane, row and column, so that overlapping windows, other batches and other
machines get the same values. Integers are mixed by a 32-bit multiply-xorshift hash; normal values come from the
Box-Muller transform.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def ground_noise(seed: int, sample: int, origins: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Standard normal noise (N, channels, height, width), float32.

    Args:
        seed: Seed of the map.
        sample: Index of the sample.
        origins: (N, 2) absolute row and column of each window's first cell.
        channels: Number of planes.
        height: Rows of cells.
        width: Columns of cells.
    """
    device = origins.device
    pairs = (channels + 1) // 2
    planes = torch.arange(pairs, device=device) + (sample << 12)
    base = _mix(_mix(planes & _MASK) ^ _mix(torch.tensor(seed & _MASK, device=device)) ^ ((seed >> 32) & _MASK))
    rows = (origins[:, :1] + torch.arange(height, device=device)) & _MASK
    columns = (origins[:, 1:] + torch.arange(width, device=device)) & _MASK
    lines = _mix(base[None, :, None] ^ _mix(rows)[:, None, :])
    first = _mix(lines[..., None] ^ _mix(columns + 0x9E3779B9 & _MASK)[:, None, None, :])
    second = _mix(first ^ 0x5BD1E995)
    radius = torch.sqrt(-2.0 * torch.log((first.float() + 0.5) / 2.0**32))
    angle = second.float() * (2.0 * math.pi / 2.0**32)
    both = torch.stack([radius * angle.cos(), radius * angle.sin()], 2)
    return both.flatten(1, 2)[:, :channels]


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers (held in int64) whose output bits each depend on every input bit."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & _MASK
    x = (x ^ (x >> 15)) * 0x846CA68B & _MASK
    return x ^ (x >> 16)
