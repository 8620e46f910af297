"""Planes of pixels to latents and back: losslessly, or by the Stable Diffusion autoencoder."""

from __future__ import annotations

from typing import Protocol

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional


class LatentCodec(Protocol):
    """Planes (N, C, H, W) to latents (N, L, H / stride, W / stride) and back."""

    stride: int

    def channels(self, planes: int) -> int:
        """Latent channels of so many planes."""

    def encode(self, planes: Tensor) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor: ...


class LosslessCodec(nn.Module):
    """Space-to-depth: every plane's patch x patch cell becomes patch^2 channels."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.stride = patch

    def channels(self, planes: int) -> int:
        return planes * self.stride**2

    def encode(self, planes: Tensor) -> Tensor:
        return functional.pixel_unshuffle(planes, self.stride)

    def decode(self, latents: Tensor) -> Tensor:
        return functional.pixel_shuffle(latents, self.stride)


class KlVaeCodec(nn.Module):
    """The frozen Stable Diffusion autoencoder; latents are the posterior's mode times the scaling factor."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False)
        self.stride = 2 ** (len(vae.config["block_out_channels"]) - 1)

    def channels(self, planes: int) -> int:
        return self.vae.config["latent_channels"]

    @torch.no_grad()
    def encode(self, planes: Tensor) -> Tensor:
        return self.vae.encode(planes).latent_dist.mode() * self.vae.config["scaling_factor"]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents / self.vae.config["scaling_factor"]).sample
