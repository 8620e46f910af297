"""Random changes of training windows: dihedral transforms, rotation and scale, and radiometric jitter.

Runs on the training worker, on whole batches; what happens to a sample depends on its own draw alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from idgbr import IGNORE
from idgbr.config.data import AugmentationConfig
from idgbr.dihedral import dihedral, inverse_dihedral

__all__ = ["augment", "dihedral", "inverse_dihedral"]


def augment(
    batch: dict[str, Tensor],
    transforms: Sequence[int] | Tensor,
    seeds: Sequence[int] | Tensor,
    config: AugmentationConfig,
) -> dict[str, Tensor]:
    """A batch with every sample transformed and jittered by its own draw.

    Args:
        batch: "image" (N, B, S, S) float, normalised; "valid" (N, S, S); and any planes (N, [C,] S, S) on the same
            grid, which turn with the image. Tensors of other shapes pass through. The windows are square.
        transforms: dihedral transform 0..7 of each sample.
        seeds: 63-bit seed of each sample; the same seed gives the same jitter in any batch, at any position.
        config: ranges of the jitter, in standard deviations of a band (the image is normalised).

    Returns:
        A new dict; the given tensors are not written to.
    """
    image = batch["image"]
    size = image.shape[-2:]
    if size[0] != size[1]:
        raise ValueError(f"augmentation needs square windows, got {tuple(size)}")
    turns = [int(k) for k in transforms]
    out = dict(batch)
    for name, plane in batch.items():
        if plane.ndim >= 3 and plane.shape[-2:] == size:
            out[name] = torch.stack([dihedral(x, k) for x, k in zip(plane, turns, strict=True)])
    if config.rotation or config.scale:
        _warp_planes(out, [int(seed) for seed in seeds], config)
    jittered = [_jitter(x, int(seed), config) for x, seed in zip(out["image"], seeds, strict=True)]
    # Invalid pixels stay at zero, the mean: a shift there would tell the model more than nodata does.
    out["image"] = torch.stack(jittered) * (out["valid"] > 0).unsqueeze(1).to(image.dtype)
    return out


def _jitter(image: Tensor, seed: int, config: AugmentationConfig) -> Tensor:
    """One image (B, S, S) with its contrast, brightness and single bands shifted, and noise added.

    Random numbers are drawn on the CPU whatever the image's device, so that a GPU worker sees the same sample.
    """
    generator = torch.Generator().manual_seed(seed)
    bands = image.shape[0]
    u = torch.rand(2 + bands, generator=generator) * 2 - 1
    gain = 1 + config.contrast * u[0]
    if config.band_mix:
        mix = torch.eye(bands) + config.band_mix * (torch.rand(bands, bands, generator=generator) * 2 - 1)
        image = torch.einsum("ij,jhw->ihw", mix.to(image), image)
    shift = config.brightness * u[1] + config.band_jitter * u[2:]
    image = image * gain.to(image) + shift.to(image)[:, None, None]
    if config.noise > 0:
        image = image + config.noise * torch.randn(image.shape, generator=generator).to(image)
    return image


def _warp_planes(batch: dict[str, Tensor], seeds: list[int], config: AugmentationConfig) -> None:
    """Turn and zoom every sample about its centre by its own draw; what comes from outside has no label.

    Images are read bilinearly, all else from the nearest pixel.
    """
    image = batch["image"]
    size = image.shape[-2:]
    matrices = torch.stack([_affine(seed, config) for seed in seeds]).to(image)
    grid = functional.affine_grid(matrices, list(image.shape), align_corners=False)
    inside = (grid.abs() <= 1).all(-1)
    for name, planes in batch.items():
        if planes.ndim < 3 or planes.shape[-2:] != size:
            continue
        stacked = planes if planes.ndim == 4 else planes.unsqueeze(1)
        warped = functional.grid_sample(
            stacked.to(image),
            grid,
            mode="bilinear" if name == "image" else "nearest",
            padding_mode="reflection",
            align_corners=False,
        )
        batch[name] = warped.reshape(planes.shape).to(planes.dtype)
    batch["label"] = batch["label"].masked_fill(~inside, IGNORE)


def _affine(seed: int, config: AugmentationConfig) -> Tensor:
    """A rotation and zoom (2, 3) in the normalised coordinates of `affine_grid`."""
    u = torch.rand(2, generator=torch.Generator().manual_seed(seed ^ 0x5DEECE66D)) * 2 - 1
    angle = math.radians(config.rotation) * float(u[0])
    zoom = (1 + config.scale) ** float(u[1])
    cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
    return torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]])
