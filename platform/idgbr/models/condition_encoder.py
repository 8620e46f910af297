"""Encoders of image and coarse map, whose features guide the denoiser: one per skip connection, one for the mid block.

At the paper's scale both features come from the frozen down and mid path of the Stable Diffusion UNet. At the small
scale a frozen timm encoder processes the image, and a small trained encoder processes image and coarse map together.
"""

from __future__ import annotations

import timm
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from idgbr.errors import UserError
from idgbr.models.pretrained import HUB, NONE, fetching, load_encoder_weights
from idgbr.models.unet_halves import down

Pair = tuple[list[Tensor], list[Tensor]]


class UNetConditionEncoder(nn.Module):
    """The frozen down and mid path of a UNet, run on image latents and on coarse latents at timestep 1."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        for name in ("up_blocks", "conv_norm_out", "conv_act", "conv_out"):
            if hasattr(unet, name):
                delattr(unet, name)
        self.unet = unet.requires_grad_(False)

    @torch.no_grad()
    def forward(self, image: Tensor, image_latents: Tensor, coarse_latents: Tensor, prompt: Tensor | None) -> Pair:
        """Latents (N, L, h, w) of image and coarse map to features of each: one per skip connection, then mid block."""
        one = torch.ones((), dtype=torch.long, device=image.device)
        image_features, coarse_features = (
            down(self.unet, latents, one, prompt).all() for latents in (image_latents, coarse_latents)
        )
        return image_features, coarse_features


class FrozenImageEncoder(nn.Module):
    """A timm encoder that is never trained: pyramid features of the image.

    Args:
        name: timm model name.
        weights: hub | none | package:efficientnet-lite0 | path of a state dict.
        levels: Feature levels; 0 is the finest.
        bands: Image bands.
        pretrained: False loads no weights here; they are loaded with the whole refiner afterwards.

    Raises:
        UserError: timm has no such model, or its weights cannot be loaded.
    """

    def __init__(self, name: str, weights: str, levels: list[int], bands: int, pretrained: bool) -> None:
        super().__init__()
        try:
            with fetching("refiner.image_encoder_weights"):
                self.model = timm.create_model(
                    name, pretrained=pretrained and weights == HUB, num_classes=0, in_chans=bands
                )
        except RuntimeError as error:
            raise UserError(f"refiner.image_encoder {name!r}: {error}") from error
        info: list[dict[str, int]] = self.model.feature_info  # type: ignore[assignment]
        self.levels = list(levels)
        self.channels = [info[level]["num_chs"] for level in levels]
        self.strides = [info[level]["reduction"] for level in levels]
        self.model.prune_intermediate_layers(self.levels, prune_norm=True, prune_head=True)  # type: ignore[operator]
        if pretrained and weights not in (HUB, NONE):
            load_encoder_weights(self.model, weights, bands)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenImageEncoder:
        """Stays in evaluation mode, to use the pretrained batch statistics."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> list[Tensor]:
        """Image (N, B, H, W), normalised, to one (N, C_i, H / stride_i, W / stride_i) per level."""
        forward = self.model.forward_intermediates
        return forward(  # type: ignore[operator]
            image, indices=self.levels, intermediates_only=True, stop_early=True
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group norm around an identity (or 1x1) path."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(_groups(inputs), inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.GroupNorm(_groups(outputs), outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


class PyramidConditionEncoder(nn.Module):
    """Features of a frozen image encoder, and of a small trained encoder of image and coarse map.

    Args:
        bands: Image bands.
        coarse_channels: Channels of the coarse latents.
        stride: Side of a latent cell in pixels.
        channels: Denoiser channels per level.
        skips: Level of every skip connection, then of mid.
        skip_channels: Channels of every skip connection, then of mid.
        frozen: The frozen image encoder, if any.
        depth: Residual blocks per level.
    """

    def __init__(
        self,
        bands: int,
        coarse_channels: int,
        stride: int,
        channels: list[int],
        skips: list[int],
        skip_channels: list[int],
        frozen: FrozenImageEncoder | None,
        depth: int,
    ) -> None:
        super().__init__()
        self.frozen: FrozenImageEncoder | None = frozen
        self.stride = stride
        self.skips = skips
        self.image_levels = nn.ModuleList()
        self.joint_levels = nn.ModuleList()
        for level, width in enumerate(channels):
            seen = self._frozen_channels(stride * 2**level) + (bands * stride**2 if level == 0 else 0)
            below = channels[level - 1] if level else 0
            self.image_levels.append(_tower(seen + below, width, 1))
            self.joint_levels.append(_tower(width + (coarse_channels if level == 0 else below), width, depth))
        self.image_heads = nn.ModuleList(
            nn.Conv2d(channels[level], c, 1) for level, c in zip(skips, skip_channels, strict=True)
        )
        self.joint_heads = nn.ModuleList(
            nn.Conv2d(channels[level], c, 1) for level, c in zip(skips, skip_channels, strict=True)
        )

    def forward(self, image: Tensor, image_latents: Tensor, coarse_latents: Tensor, prompt: Tensor | None) -> Pair:
        """Image (N, B, H, W) and coarse latents (N, L, h, w) to one feature per skip connection, then the mid block."""
        pyramid = self.frozen(image) if self.frozen is not None else []
        seen, joint = functional.pixel_unshuffle(image, self.stride), coarse_latents
        image_levels, joint_levels = [], []
        for level in range(len(self.image_levels)):
            cell = self.stride * 2**level
            size = (image.shape[-2] // cell, image.shape[-1] // cell)
            resized = [self._to_grid(f, s, level, size) for f, s in zip(pyramid, self._strides(), strict=True)]
            seen = self.image_levels[level](torch.cat([seen, *resized], 1))
            joint = self.joint_levels[level](torch.cat([seen, joint], 1))
            image_levels.append(seen)
            joint_levels.append(joint)
            seen, joint = functional.avg_pool2d(seen, 2), functional.avg_pool2d(joint, 2)
        image_features = [head(image_levels[s]) for head, s in zip(self.image_heads, self.skips, strict=True)]
        joint_features = [head(joint_levels[s]) for head, s in zip(self.joint_heads, self.skips, strict=True)]
        return image_features, joint_features

    def _strides(self) -> list[int]:
        return self.frozen.strides if self.frozen is not None else []

    def _frozen_channels(self, stride: int) -> int:
        if self.frozen is None:
            return 0
        finer = [max(1, stride // s) ** 2 for s in self.frozen.strides]
        return sum(c * (f if f <= 4 else 1) for c, f in zip(self.frozen.channels, finer, strict=True))

    def _to_grid(self, feature: Tensor, stride: int, level: int, size: tuple[int, int]) -> Tensor:
        """Bring a feature to a grid: by space-to-depth if it has twice the resolution, else by resampling."""
        factor = self.stride * 2**level // stride
        if factor == 2:
            return functional.pixel_unshuffle(feature, 2)
        if factor > 2:
            return functional.adaptive_avg_pool2d(feature, size)
        return functional.interpolate(feature, size, mode="bilinear", align_corners=False)


def _tower(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), *(ResidualBlock(outputs, outputs) for _ in range(depth)))


def _groups(channels: int) -> int:
    return next(g for g in (16, 8, 4, 2, 1) if channels % g == 0)
