"""Converts planes of pixels to latents and back: losslessly, or with the Stable Diffusion autoencoder."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from idgbr.models.noise import ground_noise


class LosslessCodec(nn.Module):
    """Space-to-depth: every plane's patch x patch cell becomes patch^2 channels."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.stride = patch

    def channels(self, planes: int) -> int:
        return planes * self.stride**2

    def image_latents(self, image: Tensor) -> Tensor:
        """The image (N, B, H, W) unchanged: with this codec the condition encoder takes pixels."""
        return image

    def start_noise(self, seed: int, sample: int, origins: Tensor, planes: int, height: int, width: int) -> Tensor:
        """Noise per pixel and plane, (N, planes, H, W), equal where windows overlap; it can be rotated by pixel."""
        return ground_noise(seed, sample, origins, planes, height, width)

    def noise_latents(self, noise: Tensor) -> Tensor:
        """Rearrange `start_noise` to latents, like label planes."""
        return self.encode(noise)

    def encode(self, planes: Tensor) -> Tensor:
        """Planes (N, C, H, W) to latents (N, C stride^2, H / stride, W / stride)."""
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

    def image_latents(self, image: Tensor) -> Tensor:
        """Encode the image (N, 3, H, W): with this codec the condition encoder takes latents."""
        latents: Tensor = self.encode(image)
        return latents

    def start_noise(self, seed: int, sample: int, origins: Tensor, planes: int, height: int, width: int) -> Tensor:
        """Noise per latent cell, (N, L, h, w), whatever the number of planes."""
        cells = torch.div(origins, self.stride, rounding_mode="floor")
        return ground_noise(seed, sample, cells, self.channels(planes), height // self.stride, width // self.stride)

    def noise_latents(self, noise: Tensor) -> Tensor:
        """Return `start_noise` unchanged: it already has the shape of latents."""
        return noise

    @torch.no_grad()
    def encode(self, planes: Tensor) -> Tensor:
        """Planes (N, 3, H, W) to latents (N, L, H / stride, W / stride)."""
        return self.vae.encode(planes).latent_dist.mode() * self.vae.config["scaling_factor"]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents / self.vae.config["scaling_factor"]).sample
