"""Vectors of our own making, for machines without the reference ones: any change of the arithmetic shows.

Weights are sines of their position, so that no generator's version matters. `own_vectors.safetensors` holds what the
plain schedule (`benchmarks/_plain.py`: nothing shared between steps, diffusers' own forward passes) made of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from idgbr.config.models import RefinerConfig, SamplerConfig
from idgbr.models.refiner import Refiner
from idgbr.models.sampler import decode, follow
from idgbr.models.schedule import Steps

VECTORS = Path(__file__).with_name("own_vectors.safetensors")
SETTINGS = {
    "codec": "kl-vae", "embedding": "learned", "prediction": "epsilon", "self_conditioning": False, "window": 64,
    "schedule": "scaled_linear", "condition_encoder": "unet", "image_encoder": "", "guidance_width": 16,
    "guidance_heads": 2,
}  # fmt: skip
UNET = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 16], "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 8, "attention_head_dim": 2, "norm_num_groups": 4,
}  # fmt: skip
VAE = {
    "block_out_channels": [4, 4, 4, 4], "layers_per_block": 1, "norm_num_groups": 2, "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "sample_size": 64,
}  # fmt: skip


def wave(shape: torch.Size, phase: float) -> torch.Tensor:
    """Sines of uneven frequency, of unit size."""
    index = torch.arange(shape.numel(), dtype=torch.float64)
    return torch.sin(index * 1.7 + index.sqrt() * 0.3 + phase).reshape(shape).float()


def refiner() -> Refiner:
    """A tiny refiner of the paper's architecture whose weights are sines."""
    made = Refiner(3, 3, RefinerConfig(**SETTINGS).model_dump(), unet=UNET, vae=VAE, prompt_shape=[4, 8])
    with torch.no_grad():
        for number, (name, value) in enumerate(sorted(made.state_dict().items())):
            scale = 0.5 if value.ndim < 2 else 0.8 / value[0].numel() ** 0.5
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            value.copy_(centre + scale * wave(value.shape, number))
    return made.eval()


@pytest.mark.parametrize("number", [0, 1])
def test_the_guided_loop(number: int) -> None:
    vectors, made = load_file(VECTORS), refiner()
    image, coarse = wave(torch.Size((1, 3, 64, 64)), number), (torch.arange(4096).view(1, 64, 64) // 17 + number) % 3
    noise = wave(torch.Size((1, 4, 8, 8)), 9 + number)
    settings = SamplerConfig(steps=3, guidance=3.0, spacing="leading", samples=1, dihedral=False)
    with torch.no_grad():
        prepared = made.prepare(image, coarse)
        latents, _ = follow(made, prepared, noise, Steps(made.settings, settings), settings)
        probabilities = decode(made, latents)
    assert (latents - noise).abs().max() > 0.1
    torch.testing.assert_close(latents, vectors[f"latents_{number}"], atol=1e-4, rtol=0)
    torch.testing.assert_close(probabilities, vectors[f"probabilities_{number}"], atol=1e-4, rtol=0)
