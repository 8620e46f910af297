"""Random changes of training windows: the eight dihedral transforms, and radiometric jitter.

Runs on the training worker, on whole batches; what happens to a sample depends on its own draw alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from idgbr.config.tree import AugmentationConfig
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
    shift = config.brightness * u[1] + config.band_jitter * u[2:]
    image = image * gain.to(image) + shift.to(image)[:, None, None]
    if config.noise > 0:
        image = image + config.noise * torch.randn(image.shape, generator=generator).to(image)
    return image
