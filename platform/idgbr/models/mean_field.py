"""Mean field: nearby pixels of similar colour get the same class; runs after the denoiser.

Mean-field inference in a conditional random field with Gaussian edge potentials (Krähenbühl & Koltun, 2011), as plain
tensor arithmetic: neighbours are sampled on rings around a pixel, denser near it, so that a window takes a few
milliseconds on any device. It moves the edges in the denoiser's result by the last pixels to the edges in the image.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from idgbr.config.models import MeanFieldConfig

_RADII = (1, 2, 3, 5, 8, 12, 18, 26)
_DIRECTIONS = 8


def mean_field(probabilities: Tensor, image: Tensor, settings: MeanFieldConfig, valid: Tensor | None = None) -> Tensor:
    """Class probabilities after some rounds of mean-field inference.

    Args:
        probabilities: (N, K, H, W), sums to one over K.
        image: (N, B, H, W), normalised to unit standard deviation a band.
        settings: Rounds, reach and strength.
        valid: (N, H, W) bool, where the image holds data; default everywhere.

    Returns:
        (N, K, H, W) float32. Pixels outside the window and invalid pixels have no influence.
    """
    if not settings.rounds:
        return probabilities
    image = image.float()
    offsets, nearness = _neighbours(settings.reach)
    pad = max(max(abs(row), abs(col)) for row, col in offsets)
    agreement = _agreement(image, settings, valid, offsets, nearness, pad)
    everyone = torch.stack(agreement).sum(0)
    unary = probabilities.float().clamp(min=1e-4).log()
    belief = unary.softmax(1)
    for _ in range(settings.rounds):
        around = _Shifted(belief[:, 1:], pad, offsets)
        others = torch.zeros_like(belief[:, 1:])
        for index, weight in enumerate(agreement):
            others.addcmul_(weight, around[index])
        # Beliefs sum to one over the classes, so the message for the first class is the total weight minus the others.
        message = torch.cat([everyone - others.sum(1, keepdim=True), others], 1)
        belief = (unary + message).softmax(1)
    return belief


def smooth(probabilities: Tensor, deviation: float, valid: Tensor | None = None) -> Tensor:
    """Class probabilities averaged with a small Gaussian: edges lose their fray, not their place.

    Args:
        probabilities: (N, K, H, W).
        deviation: Standard deviation in pixels; 0 changes nothing.
        valid: (N, H, W) bool, where the image holds data; default everywhere. Other pixels, and those beyond the edge
            of the window, have no say.
    """
    if not deviation:
        return probabilities
    classes, radius = probabilities.shape[1], math.ceil(4 * deviation)
    steps = torch.arange(-radius, radius + 1, device=probabilities.device, dtype=torch.float32)
    kernel = torch.exp(-steps.square() / (2 * deviation**2))
    inside = torch.ones_like(probabilities[:, :1]) if valid is None else valid.unsqueeze(1).float()
    planes = torch.cat([probabilities.float() * inside, inside.float()], 1)
    for shape, padding in (((1, 1, -1, 1), (radius, 0)), ((1, 1, 1, -1), (0, radius))):
        weight = kernel.view(shape).expand(classes + 1, 1, -1, -1)
        planes = functional.conv2d(planes, weight.contiguous(), padding=padding, groups=classes + 1)
    averaged = planes[:, :-1] / planes[:, -1:].clamp(min=1e-6)
    return torch.where(inside > 0, averaged, probabilities)


def _agreement(
    image: Tensor,
    settings: MeanFieldConfig,
    valid: Tensor | None,
    offsets: list[tuple[int, int]],
    nearness: list[float],
    pad: int,
) -> list[Tensor]:
    """Weight of each neighbour of a pixel, (N, 1, H, W), from colour difference and distance."""
    known = torch.ones_like(image[:, :1]) if valid is None else valid.unsqueeze(1).to(image.dtype)
    shifted, inside = _Shifted(image, pad, offsets), _Shifted(known, pad, offsets)
    weights = []
    for index, weight in enumerate(nearness):
        difference = (shifted[index] - image).square().mean(1, keepdim=True)
        weights.append(weight * torch.exp(-difference / (2 * settings.colour**2)) * inside[index])
    alike = settings.weight / torch.stack(weights).sum(0).clamp(min=1e-6)
    adjacent = [index for index, (row, col) in enumerate(offsets) if max(abs(row), abs(col)) <= 3]
    smooth = settings.smooth_weight / torch.stack([inside[index] for index in adjacent]).sum(0).clamp(min=1)
    weights = [weight * alike for weight in weights]
    for index in adjacent:
        weights[index] = weights[index] + smooth * inside[index]
    return weights


class _Shifted:
    """Views of a plane shifted by each offset, with zeros outside the plane."""

    def __init__(self, planes: Tensor, pad: int, offsets: list[tuple[int, int]]) -> None:
        self.height, self.width = planes.shape[-2:]
        self.padded = functional.pad(planes, (pad, pad, pad, pad))
        self.pad, self.offsets = pad, offsets

    def __getitem__(self, index: int) -> Tensor:
        row, col = (self.pad + step for step in self.offsets[index])
        return self.padded[..., row : row + self.height, col : col + self.width]


@lru_cache
def _neighbours(reach: float) -> tuple[list[tuple[int, int]], list[float]]:
    """Offsets on rings, and for each the Gaussian weight of the area that it represents."""
    radii = [radius for radius in _RADII if radius <= 2 * reach]
    edges = [0.5, *((a + b) / 2 for a, b in itertools.pairwise(radii)), radii[-1] * 1.25]
    offsets, weights = [], []
    for index, radius in enumerate(radii):
        area = math.pi * (edges[index + 1] ** 2 - edges[index] ** 2) / _DIRECTIONS
        for direction in range(_DIRECTIONS):
            angle = 2 * math.pi * (direction + 0.5 * (index % 2)) / _DIRECTIONS
            offsets.append((round(radius * math.sin(angle)), round(radius * math.cos(angle))))
            weights.append(area * math.exp(-(radius**2) / (2 * reach**2)))
    return offsets, weights
