"""Our modules against the exact numbers a tiny instance of the released architecture gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from idgbr.config.models import SamplerConfig
from idgbr.models.refiner import Refiner
from idgbr.models.release import load_release
from idgbr.models.sampler import decode
from idgbr.models.schedule import build_schedule
from idgbr.models.unet_halves import down, up


@pytest.fixture(scope="module")
def vectors(golden_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(golden_dir / "idgbr_8class" / "vectors.safetensors")


@pytest.fixture(scope="module")
def refiner(golden_dir: Path, vectors: dict[str, torch.Tensor]) -> Refiner:
    return load_release(golden_dir / "idgbr_8class", vectors["prompt_embeds"])


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@torch.no_grad()
def test_conditions(refiner: Refiner, vectors: dict[str, torch.Tensor]) -> None:
    image = refiner.codec.encode(vectors["image"])
    close(image, vectors["image_latents"])
    rough = vectors["rough_label"][:, 0]
    close(refiner.embedding.encode(rough), vectors["rough_embedding"])
    latents = refiner.encode_labels(rough)
    close(latents, vectors["rough_latents"])
    image_features, coarse_features = refiner.encoder(vectors["image"], image, latents, refiner.prompt)
    for i in (0, 5, 11):
        close(image_features[i], vectors[f"image_skip_{i}"])
        close(coarse_features[i], vectors[f"rough_skip_{i}"])
    close(image_features[-1], vectors["image_mid"])
    close(coarse_features[-1], vectors["rough_mid"])


@torch.no_grad()
def test_every_step_of_the_guided_loop(refiner: Refiner, vectors: dict[str, torch.Tensor]) -> None:
    prepared = refiner.prepare(vectors["image"], vectors["rough_label"][:, 0])
    schedule = build_schedule(refiner.settings, "leading")
    schedule.set_timesteps(5)
    assert schedule.timesteps.tolist() == [801, 601, 401, 201, 1]
    latents = vectors["noise_latents"]
    for step, timestep in enumerate(schedule.timesteps):
        features = down(refiner.denoiser, latents, timestep, refiner.prompt)
        residuals = refiner.guidance(features.all(), prepared.conditions)
        if step == 0:
            for i in (0, 5, 11):
                close(features.skips[i], vectors[f"step0_query_{i}"])
                close(residuals[i], vectors[f"step0_residual_{i}"])
            close(residuals[-1], vectors["step0_residual_mid"])
        close(up(refiner.denoiser, features, None, refiner.prompt), vectors[f"step{step}_eps_uncond"])
        close(up(refiner.denoiser, features, residuals, refiner.prompt), vectors[f"step{step}_eps_cond"])
        guided = refiner(latents, timestep, prepared, guidance=3.0)
        latents = schedule.step(guided, int(timestep), latents).prev_sample
        close(latents, vectors[f"step{step}_latents"])
    close(refiner.codec.decode(latents), vectors["decoded_embedding"])
    close(refiner.embedding.decode(refiner.codec.decode(latents)), vectors["logits"])
    assert (decode(refiner, latents).argmax(1) == vectors["mask"]).float().mean() >= 0.999


@torch.no_grad()
def test_the_loop_as_users_call_it(refiner: Refiner, vectors: dict[str, torch.Tensor]) -> None:
    from idgbr.models.sampler import denoise

    prepared = refiner.prepare(vectors["image"], vectors["rough_label"][:, 0])
    settings = SamplerConfig(steps=5, guidance=3.0, spacing="leading")
    mask = denoise(refiner, prepared, vectors["noise_latents"], settings).argmax(1)
    assert (mask == vectors["mask"]).float().mean() >= 0.999
