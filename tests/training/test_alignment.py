"""Representation alignment: it takes part in the first steps only, and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch

from idgbr.config.models import RefinerConfig
from idgbr.config.training import AlignmentConfig
from idgbr.datasets.normalisation import IMAGENET, Normalisation
from idgbr.errors import UserError
from idgbr.models.refiner import Refiner
from idgbr.training.alignment import Alignment, align, without_head


def tiny() -> Refiner:
    torch.manual_seed(0)
    settings = RefinerConfig(window=64, channels=[16, 32], guidance_width=16, guidance_heads=2, image_encoder="")
    return Refiner(3, 3, settings.model_dump())


def aligned(refiner: Refiner) -> Alignment:
    settings = AlignmentConfig(teacher="test_vit", weights="none", weight=0.5, steps=3)
    alignment = align(refiner, settings, 3, IMAGENET)
    assert alignment is not None
    return alignment


def run(refiner: Refiner, image: torch.Tensor) -> None:
    noisy = torch.randn(2, refiner.latent_channels, 16, 16, generator=torch.Generator().manual_seed(1))
    refiner(noisy, torch.tensor(500), refiner.prepare(image, torch.zeros(2, 64, 64, dtype=torch.long)))


def test_the_residual_comes_to_resemble_the_teacher_and_later_steps_are_free() -> None:
    refiner = tiny()
    alignment, image = aligned(refiner), torch.randn(2, 3, 64, 64)
    optimiser = torch.optim.AdamW([p for p in refiner.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(15):
        run(refiner, image)
        loss = alignment.loss(image, step=0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert -0.5 <= losses[-1] < losses[0] - 0.05
    assert any(bool(p.grad.any()) for p in refiner.guidance.blocks[-1].parameters() if p.grad is not None)
    run(refiner, image)
    later = alignment.loss(image, step=3)
    optimiser.zero_grad()
    later.backward()
    assert float(later.detach()) == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in alignment.head.parameters())


def test_the_head_is_dropped_and_the_teacher_never_kept() -> None:
    refiner = tiny()
    before = set(refiner.state_dict())
    aligned(refiner)
    assert set(refiner.state_dict()) > before
    assert set(without_head(refiner.state_dict())) == before


def test_a_vit_sees_whole_patches_of_seven_eighths() -> None:
    teacher = aligned(tiny()).teacher[0]
    tokens = teacher(torch.randn(1, 3, 64, 96))
    assert tokens.shape == (1, teacher.width, 56 // teacher.patch, 84 // teacher.patch)
    measured = align(
        tiny(), AlignmentConfig(teacher="test_vit", weights="none"), 3, Normalisation((0.0,) * 3, (1.0,) * 3)
    )
    assert measured is not None
    raw = torch.rand(1, 3, 64, 64) * 255
    mean, std = (torch.tensor(f).view(1, 3, 1, 1) for f in (IMAGENET.mean, IMAGENET.std))
    torch.testing.assert_close(measured.teacher[0]._renormalised(raw), (raw - mean) / std)


@pytest.mark.parametrize("name", ["no_such_vit", "tf_efficientnet_lite0"])
def test_what_is_no_vit_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="expected a ViT"):
        align(tiny(), AlignmentConfig(teacher=name, weights="none"), 3, IMAGENET)


@pytest.mark.usefixtures("no_hub")
def test_a_teacher_out_of_reach() -> None:
    with pytest.raises(UserError, match=r"training\.refiner\.alignment\.weights 'hub'.*path of a state dict"):
        align(tiny(), AlignmentConfig(teacher="vit_small_patch14_dinov2"), 3, IMAGENET)
