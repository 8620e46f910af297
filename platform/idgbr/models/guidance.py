"""The conditional guidance net: one block per skip connection and one for the mid block.

Method: arXiv 2507.01573. A block fuses a denoiser feature with the image's and the coarse map's features of the same
grid into a residual. The part that depends only on image and coarse map is computed once per window
(`GuidanceBlock.prepare`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass
class PreparedCondition:
    """Results of a block's computation that are the same in all denoising steps.

    Attributes:
        fused: (N, C, H, W) contribution of the condition to the fusing convolution, including the bias.
        tokens: (N, H W, W) normalised keys before any layer.
        keys: Per layer, (N, heads, H W, head width) projected keys.
        values: (N, heads, H W, head width) the first layer's projected values.
        position: (1, H W, W) position table on this grid.
    """

    fused: Tensor
    tokens: Tensor
    keys: list[Tensor]
    values: Tensor
    position: Tensor


class CrossAttention(nn.Module):
    """Multi-head attention whose key and value projections can be computed before the queries are known."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def split(self, tokens: Tensor) -> Tensor:
        """(N, T, W) to (N, heads, T, W / heads)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Queries (N, T, W) with split keys and values to (N, T, W)."""
        mixed = functional.scaled_dot_product_attention(self.split(self.query(query)), keys, values)
        return self.out(mixed.transpose(1, 2).flatten(2))


class GuidanceLayer(nn.Module):
    """One transformer layer whose residual connection is on the values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_query = nn.LayerNorm(width)
        self.norm_key = nn.LayerNorm(width)
        self.norm_value = nn.LayerNorm(width)
        self.attention = CrossAttention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def keys(self, tokens: Tensor) -> Tensor:
        return self.attention.split(self.attention.key(self.norm_key(tokens)))

    def values(self, tokens: Tensor) -> Tensor:
        return self.attention.split(self.attention.value(self.norm_value(tokens)))

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, tokens: Tensor) -> Tensor:
        """Queries and the running value tokens (N, T, W) to new value tokens."""
        tokens = tokens + self.attention(self.norm_query(query), keys, values)
        hidden = self.expand(self.norm_mlp(tokens))
        return tokens + self.contract(hidden * torch.sigmoid(1.702 * hidden))


class GuidanceBlock(nn.Module):
    """Fuses one denoiser feature with the condition into a residual of the same shape.

    Args:
        channels: C of the denoiser feature; the condition has 2 C (image and coarse map).
        grid: Side of the base grid that the position table covers.
        width: Attention width W.
        heads: Attention heads.
        layers: Transformer layers.
        start_at_zero: The residual starts at zero, so that a pretrained denoiser is not disturbed.
    """

    def __init__(self, channels: int, grid: int, width: int, heads: int, layers: int, start_at_zero: bool) -> None:
        super().__init__()
        self.channels = channels
        self.fuse = nn.Conv2d(3 * channels, channels, 1)
        self.to_query = nn.Conv2d(channels, width, 1, bias=False)
        self.to_key = nn.Conv2d(2 * channels, width, 1, bias=False)
        self.position = nn.Parameter(width**-0.5 * torch.randn(grid * grid, width))
        self.norm_query = nn.LayerNorm(width)
        self.norm_key = nn.LayerNorm(width)
        self.layers = nn.ModuleList(GuidanceLayer(width, heads) for _ in range(layers))
        self.norm_out = nn.LayerNorm(width)
        self.to_residual = nn.Conv2d(width, channels, 1, bias=False)
        if start_at_zero:
            for parameter in (*self.fuse.parameters(), *self.to_residual.parameters()):
                nn.init.zeros_(parameter)

    def positions(self, height: int, width: int) -> Tensor:
        """The position table on a grid, (1, height width, W), resized bicubically where it is not the base grid."""
        side = int(self.position.shape[0] ** 0.5)
        if (height, width) == (side, side):
            return self.position[None]
        table = self.position.T.reshape(1, -1, side, side)
        table = functional.interpolate(table.float(), (height, width), mode="bicubic", align_corners=False)
        return table.to(self.position.dtype).flatten(2).transpose(1, 2)

    def prepare(self, condition: Tensor) -> PreparedCondition:
        """Compute the results for one condition (N, 2 C, H, W) that all steps share."""
        position = self.positions(*condition.shape[-2:])
        tokens = self.norm_key(self.to_key(condition).flatten(2).transpose(1, 2) + position)
        fused = functional.conv2d(condition, self.fuse.weight[:, self.channels :], self.fuse.bias)
        keys = [layer.keys(tokens) for layer in self._layers()]
        return PreparedCondition(fused, tokens, keys, self._layers()[0].values(tokens), position)

    def forward(self, feature: Tensor, prepared: PreparedCondition) -> Tensor:
        """Residual (N, C, H, W) for a denoiser feature (N, C, H, W)."""
        fused = functional.conv2d(feature, self.fuse.weight[:, : self.channels]) + prepared.fused
        query = self.norm_query(self.to_query(fused).flatten(2).transpose(1, 2) + prepared.position)
        tokens, values = prepared.tokens, prepared.values
        for index, layer in enumerate(self._layers()):
            if index:
                values = layer.values(tokens)
            tokens = layer(query, prepared.keys[index], values, tokens)
        grid = self.norm_out(tokens).transpose(1, 2).unflatten(2, feature.shape[-2:])
        return self.to_residual(grid) + fused

    def _layers(self) -> list[GuidanceLayer]:
        return list(self.layers)  # type: ignore[arg-type]


class GuidanceNet(nn.Module):
    """One guidance block per skip connection, then one for the mid block.

    Args:
        channels: Channels per skip, then of mid.
        grids: Side of the base grid per skip, then of mid.
        width: Attention width.
        heads: Attention heads.
        layers: Transformer layers per block.
        start_at_zero: See `GuidanceBlock`.
    """

    def __init__(
        self, channels: list[int], grids: list[int], width: int, heads: int, layers: int, start_at_zero: bool = True
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            GuidanceBlock(c, g, width, heads, layers, start_at_zero) for c, g in zip(channels, grids, strict=True)
        )

    def prepare(self, image: list[Tensor], coarse: list[Tensor]) -> list[PreparedCondition]:
        """Prepare image and coarse features, one (N, C_i, H_i, W_i) each per block, for all denoising steps."""
        pairs = zip(self.blocks, image, coarse, strict=True)
        return [block.prepare(torch.cat([i, c], 1)) for block, i, c in pairs]  # type: ignore[operator]

    def forward(self, features: list[Tensor], prepared: list[PreparedCondition]) -> list[Tensor]:
        """Residuals for the denoiser's features (skips, then mid)."""
        return [block(f, p) for block, f, p in zip(self.blocks, features, prepared, strict=True)]
