"""The plain schedule, as the authors' release computes it: everything anew at every step.

A step runs the condition encoder on image and on coarse map, the denoiser's down path for the guidance net's queries,
the guidance net with its keys and values, and then the whole denoiser twice, without and with the residuals.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor

from idgbr.models.guidance import GuidanceBlock, GuidanceLayer
from idgbr.models.refiner import Refiner
from idgbr.models.schedule import build_schedule
from idgbr.models.unet_halves import down


def plain_loop(
    refiner: Refiner, image_latents: Tensor, coarse_latents: Tensor, latents: Tensor, steps: int, guidance: float
) -> Tensor:
    """DDIM over all steps: noise to clean latents, (N, L, h, w) each."""
    schedule = build_schedule(refiner.settings, "leading")
    schedule.set_timesteps(steps)
    for timestep in schedule.timesteps.to(latents.device):
        noise = plain_prediction(refiner, image_latents, coarse_latents, latents, timestep, guidance)
        latents = schedule.step(noise, int(timestep), latents).prev_sample
    return latents


def plain_prediction(
    refiner: Refiner,
    image_latents: Tensor,
    coarse_latents: Tensor,
    latents: Tensor,
    timestep: Tensor,
    guidance: float,
) -> Tensor:
    """One step's guided prediction, (N, L, h, w)."""
    prompt = None if refiner.prompt is None else refiner.prompt.expand(len(latents), -1, -1)
    image, coarse = refiner.encoder(image_latents, image_latents, coarse_latents, prompt)
    queries = down(refiner.denoiser, latents, timestep, prompt).all()
    blocks = zip(refiner.guidance.blocks, queries, image, coarse, strict=True)
    residuals = [_residual(cast(GuidanceBlock, block), q, torch.cat([i, c], 1)) for block, q, i, c in blocks]
    unguided = refiner.denoiser(latents, timestep, prompt).sample
    guided = refiner.denoiser(
        latents,
        timestep,
        prompt,
        down_block_additional_residuals=tuple(residuals[:-1]),
        mid_block_additional_residual=residuals[-1],
    ).sample
    return unguided + guidance * (guided - unguided)


def _residual(block: GuidanceBlock, feature: Tensor, condition: Tensor) -> Tensor:
    fused = block.fuse(torch.cat([feature, condition], 1))
    position = block.positions(*feature.shape[-2:])
    query = block.norm_query(block.to_query(fused).flatten(2).mT + position)
    tokens = block.norm_key(block.to_key(condition).flatten(2).mT + position)
    for layer in cast(Iterable[GuidanceLayer], block.layers):
        tokens = layer(query, layer.keys(tokens), layer.values(tokens), tokens)
    return block.to_residual(block.norm_out(tokens).mT.unflatten(2, feature.shape[-2:])) + fused
