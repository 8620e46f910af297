"""Configurations of the parts of Stable Diffusion 1.5 in diffusers' format, to build them without their weights.

The values are those of its public configuration files. They are defaults: a converted folder has its own configuration.
"""

from __future__ import annotations

from typing import Any

_COMMON: dict[str, Any] = {"layers_per_block": 2, "norm_num_groups": 32}

SD15_UNET: dict[str, Any] = _COMMON | {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}

SD15_VAE: dict[str, Any] = _COMMON | {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}

SD15_PROMPT = [77, 768]
"""Tokens and width of a prompt's embedding."""
