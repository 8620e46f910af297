"""The last step of refinement, on pictures whose answer is known."""

from __future__ import annotations

import torch

from idgbr.config.models import MeanFieldConfig
from idgbr.models.mean_field import _neighbours, mean_field, smooth

SETTINGS = MeanFieldConfig(rounds=5)


def _scene(shift: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image (1, 3, 48, 48) of two noisy colours, its label (48, 48), and probabilities whose edge is `shift` px off."""
    generator = torch.Generator().manual_seed(0)
    label = (torch.arange(48) >= 24).long().expand(48, -1)
    image = (label * 2.0 - 1.0).expand(1, 3, -1, -1) + 0.03 * torch.randn(1, 3, 48, 48, generator=generator)
    moved = (torch.arange(48) >= 24 + shift).float().expand(48, -1)
    probabilities = 0.2 + 0.6 * torch.stack([1 - moved, moved])[None]
    return image, label, probabilities


def test_an_edge_moves_to_the_image_s() -> None:
    image, label, probabilities = _scene(3)
    before = (probabilities.argmax(1)[0] != label).sum()
    after = (mean_field(probabilities, image, SETTINGS).argmax(1)[0] != label).sum()
    assert before == 3 * 48
    assert after <= 6


def test_a_sure_map_without_a_colour_edge_stays() -> None:
    _, _, probabilities = _scene(3)
    sure = (probabilities - 0.5) * 1.98 / 0.6 / 2 + 0.5
    settled = mean_field(sure, torch.zeros(1, 3, 48, 48), SETTINGS)
    assert (settled.argmax(1) != sure.argmax(1)).float().mean() < 0.05
    assert torch.allclose(settled.sum(1), torch.ones(1, 48, 48), atol=1e-5)


def test_off_is_off_and_a_window_does_not_depend_on_its_batch() -> None:
    image, _, probabilities = _scene(2)
    assert mean_field(probabilities, image, MeanFieldConfig()) is probabilities
    both = mean_field(torch.cat([probabilities, probabilities.flip(1)]), torch.cat([image, -image]), SETTINGS)
    assert torch.allclose(both[:1], mean_field(probabilities, image, SETTINGS), atol=1e-6)


def test_turns_with_the_window() -> None:
    image, _, probabilities = _scene(2)
    turned = mean_field(probabilities.flip(-1), image.flip(-1), SETTINGS).flip(-1)
    assert torch.allclose(turned, mean_field(probabilities, image, SETTINGS), atol=1e-4)


def test_pixels_without_data_have_no_say() -> None:
    """A window that sticks out of its scene says of the scene what the scene alone says."""
    image, _, probabilities = _scene(2)
    beyond = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 48, 30)
    valid = torch.ones(1, 48, 78, dtype=torch.bool)
    valid[..., 48:] = False
    wide = torch.cat([probabilities, beyond], -1), torch.cat([image, image[..., -1:].expand(-1, -1, -1, 30)], -1)
    alone = mean_field(probabilities, image, SETTINGS)
    assert torch.allclose(mean_field(*wide, SETTINGS, valid)[..., :48], alone, atol=1e-5)
    assert not torch.allclose(mean_field(*wide, SETTINGS)[..., :48], alone, atol=0.1)


def test_follows_the_formula() -> None:
    """Three classes, pixel by pixel and neighbour by neighbour, with pixels that say nothing."""
    generator = torch.Generator().manual_seed(1)
    settings = MeanFieldConfig(rounds=3, weight=2.0, smooth_weight=1.5, colour=0.4, reach=2.0)
    image = 0.5 * torch.randn(1, 2, 9, 11, generator=generator)
    probabilities = torch.randn(1, 3, 9, 11, generator=generator).softmax(1)
    valid = torch.rand(1, 9, 11, generator=generator) > 0.2
    unary, belief = probabilities[0].log(), probabilities[0]
    for _ in range(settings.rounds):
        message = torch.zeros_like(belief)
        for row in range(9):
            for col in range(11):
                alike, near = [], []
                for (down, right), nearness in zip(*_neighbours(settings.reach), strict=True):
                    y, x = row + down, col + right
                    if 0 <= y < 9 and 0 <= x < 11 and valid[0, y, x]:
                        difference = (image[0, :, y, x] - image[0, :, row, col]).square().mean()
                        alike.append((nearness * (-difference / (2 * settings.colour**2)).exp(), belief[:, y, x]))
                        if max(abs(down), abs(right)) <= 3:
                            near.append((torch.ones(()), belief[:, y, x]))
                for weight, heard in ((settings.weight, alike), (settings.smooth_weight, near)):
                    total = sum(share for share, _ in heard)
                    message[:, row, col] += weight * sum(share * said for share, said in heard) / total
        belief = (unary + message).softmax(0)
    assert torch.allclose(mean_field(probabilities, image, settings, valid)[0], belief, atol=1e-5)


def test_smoothing_straightens_a_frayed_edge_and_leaves_out_what_is_not_valid() -> None:
    rows, cols = torch.meshgrid(torch.arange(20), torch.arange(24), indexing="ij")
    frayed = (cols + (rows % 4 == 0) > 12).float()
    probabilities = torch.stack([1 - frayed, frayed])[None]
    smoothed = smooth(probabilities, 0.9)
    torch.testing.assert_close(smoothed.sum(1), torch.ones(1, 20, 24))
    assert torch.equal(smooth(probabilities, 0.0), probabilities)
    assert (smoothed[0, 1] > 0.5)[2:-2].any(0).equal((smoothed[0, 1] > 0.5)[2:-2].all(0)), "every row ends alike"
    valid = cols[None] < 12
    other = torch.where(valid[:, None], probabilities, torch.rand(1, 2, 20, 24))
    first, second = (smooth(planes, 0.9, valid)[..., :12] for planes in (probabilities, other))
    torch.testing.assert_close(first, second)
