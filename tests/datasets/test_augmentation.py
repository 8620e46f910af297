from __future__ import annotations

import pytest
import torch

from idgbr.config.data import AugmentationConfig
from idgbr.datasets.augmentation import augment, dihedral, inverse_dihedral


def _batch(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 3, (count, 16, 16), generator=generator)
    return {
        "image": torch.randn(count, 3, 16, 16, generator=generator) * 0.01 + label[:, None],
        "label": label,
        "valid": (torch.rand(count, 16, 16, generator=generator) > 0.2).to(torch.uint8),
        "coarse": torch.randint(0, 255, (count, 4, 16, 16), generator=generator, dtype=torch.uint8),
        "row": torch.arange(count),
    }


@pytest.mark.parametrize("k", range(8))
def test_dihedral_is_undone_by_its_inverse(k: int) -> None:
    x = torch.arange(2 * 5 * 5).reshape(2, 5, 5)
    assert torch.equal(inverse_dihedral(dihedral(x, k), k), x)


def test_the_eight_transforms_differ() -> None:
    x = torch.arange(9).reshape(3, 3)
    assert len({tuple(dihedral(x, k).flatten().tolist()) for k in range(8)}) == 8


def test_planes_turn_together() -> None:
    batch = _batch(8)
    config = AugmentationConfig(brightness=0, contrast=0, band_jitter=0)
    out = augment(batch, range(8), range(8), config)
    valid = out["valid"] > 0
    assert torch.equal(out["image"][:, 0][valid].round().long(), out["label"][valid])
    for k in range(8):
        assert torch.equal(inverse_dihedral(out["coarse"][k], k), batch["coarse"][k])
        assert torch.equal(inverse_dihedral(out["label"][k], k), batch["label"][k])
    assert torch.equal(out["row"], batch["row"])


def test_a_sample_looks_the_same_in_any_batch() -> None:
    config = AugmentationConfig(noise=0.1)
    batch = _batch(6)
    transforms, seeds = torch.tensor([0, 5, 2, 7, 1, 3]), torch.tensor([11, 2**62 + 5, 13, 14, 15, 16])
    whole = augment(batch, transforms, seeds, config)
    pick = [4, 1]
    part = augment({k: v[pick] for k, v in batch.items()}, transforms[pick], seeds[pick], config)
    for name in whole:
        assert torch.equal(whole[name][pick], part[name])
    again = augment(batch, transforms, seeds + 1, config)
    assert not torch.equal(again["image"], whole["image"])


def test_invalid_pixels_stay_zero_and_input_is_untouched() -> None:
    batch = _batch(4)
    before = {k: v.clone() for k, v in batch.items()}
    out = augment(batch, [0] * 4, range(4), AugmentationConfig(noise=1.0, brightness=1.0))
    assert (out["image"].permute(0, 2, 3, 1)[out["valid"] == 0] == 0).all()
    assert all(torch.equal(batch[k], before[k]) for k in batch)


def test_rotation_and_zoom_keep_image_and_label_together_and_label_nothing_from_outside() -> None:
    size = 64
    rows, cols = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    label = ((rows - 20) ** 2 + (cols - 40) ** 2 < 12**2).long().expand(6, -1, -1).clone()
    batch = {"image": label[:, None].float().repeat(1, 3, 1, 1), "label": label, "valid": torch.ones_like(label)}
    config = AugmentationConfig(brightness=0, contrast=0, band_jitter=0, rotation=30, scale=0.3)
    out = augment(batch, [0] * 6, range(6), config)
    seen = out["label"] != 255
    agree = (out["image"][:, 0] > 0.5).long() == out["label"]
    assert agree[seen].float().mean() > 0.99
    assert not torch.equal(out["label"], label)
    assert (~seen).any() and seen.float().mean() > 0.6
    areas = [(sample == 1).sum().item() for sample in out["label"]]
    assert max(areas) > 1.2 * min(areas)


def test_mixed_bands_move_colours_and_not_edges() -> None:
    batch = _batch(4)
    config = AugmentationConfig(brightness=0, contrast=0, band_jitter=0, band_mix=0.5)
    batch["image"][:, 1] *= -1
    out = augment(batch, [0] * 4, range(4), config)
    assert torch.equal(out["label"], batch["label"])
    assert not torch.allclose(out["image"], batch["image"], atol=0.05)
    again = augment(batch, [0] * 4, range(4), config)
    assert torch.equal(out["image"], again["image"])
