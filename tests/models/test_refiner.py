"""The refiner at the small scale: what must hold whatever its weights are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks._plain import plain_prediction
from idgbr.config.models import RefinerConfig, SamplerConfig
from idgbr.dihedral import dihedral, inverse_dihedral
from idgbr.models.guidance import GuidanceNet
from idgbr.models.noise import ground_noise
from idgbr.models.refiner import Guide, Refiner
from idgbr.models.sampler import sample
from idgbr.models.schedule import build_schedule

CLASSES = 3


def tiny(**keys: object) -> Refiner:
    settings = RefinerConfig(
        **{
            "window": 32,
            "channels": [16, 32],
            "guidance_width": 16,
            "guidance_heads": 2,
            "attention_head_dim": 8,
            "condition_depth": 1,
            "image_encoder_weights": "none",
            "image_encoder_levels": [0, 1],
            **keys,
        }
    )
    torch.manual_seed(0)
    return Refiner(CLASSES, 3, settings.model_dump()).eval()


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    image = torch.randn(3, 3, 32, 32)
    coarse = torch.randint(0, CLASSES, (3, 32, 32))
    return image, coarse, torch.tensor([[0, 0], [40, 8], [1_000_003, 77]])


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample", "label"])
@pytest.mark.parametrize("steps", [1, 3])
def test_every_prediction_gives_probabilities(prediction: str, steps: int, inputs: tuple) -> None:
    refined = sample(tiny(prediction=prediction), *inputs, SamplerConfig(steps=steps, samples=2))
    assert refined.probabilities.shape == (3, CLASSES, 32, 32)
    torch.testing.assert_close(refined.probabilities.sum(1), torch.ones(3, 32, 32), atol=1e-4, rtol=0)
    assert refined.uncertainty.min() >= 0 and refined.uncertainty.max() <= 1


def test_without_coarse_guidance_zeros_stand_for_the_coarse_map(inputs: tuple) -> None:
    """The same weights: as the guided refiner whose coarse latents are zeros, whatever the coarse map."""
    image, coarse, _ = inputs
    with_map, without = tiny(), tiny(coarse_guidance=False)
    for parameter in with_map.parameters():  # guidance begins at zero
        torch.nn.init.normal_(parameter, std=0.1)
    without.load_state_dict(with_map.state_dict())
    noisy = torch.randn(3, with_map.latent_channels, 8, 8)
    latents = with_map.encode_labels(coarse)
    expected = with_map.guidance.prepare(*with_map.encoder(image, image, torch.zeros_like(latents), None))
    with torch.no_grad():
        golden = with_map(noisy, torch.tensor(500), Guide(expected, None))
        answers = [without(noisy, torch.tensor(500), without.prepare(image, one)) for one in (coarse, 2 - coarse)]
        guided = with_map(noisy, torch.tensor(500), with_map.prepare(image, coarse))
    for answer in answers:
        torch.testing.assert_close(answer, golden, rtol=0, atol=0)
    assert not torch.allclose(guided, golden)
    with pytest.raises(ValueError, match="coarse_guidance"):
        RefinerConfig(correction=True, coarse_guidance=False)


@pytest.mark.parametrize("objective", ["diffusion", "one_shot"])
def test_a_correction_begins_as_the_coarse_map(objective: str, inputs: tuple) -> None:
    """However many steps are taken: an untrained refiner changes nothing."""
    refiner = tiny(correction=True, self_conditioning=False, objective=objective)
    for steps in (1, 3):
        refined = sample(refiner, *inputs, SamplerConfig(steps=steps, samples=2)).probabilities
        assert (refined.argmax(1) == inputs[1]).all()


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 3.0])
def test_a_tile_does_not_depend_on_its_batch(guidance: float, inputs: tuple) -> None:
    image, coarse, origins = inputs
    refiner, settings = tiny(), SamplerConfig(steps=2, samples=2, guidance=guidance)
    together = sample(refiner, image, coarse, origins, settings).probabilities
    alone = sample(refiner, image[1:2], coarse[1:2], origins[1:2], settings).probabilities
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)


def test_noise_belongs_to_the_ground() -> None:
    here = ground_noise(7, 2, torch.tensor([[100, 200]]), 5, 24, 32)
    there = ground_noise(7, 2, torch.tensor([[0, 0], [108, 210]]), 5, 24, 32)
    torch.testing.assert_close(here[0, :, 8:, 10:], there[1, :, :16, :22], atol=0, rtol=0)
    other = ground_noise(7, 3, torch.tensor([[100, 200]]), 5, 24, 32)
    assert not torch.isclose(here, other).any(dim=0).all()


def test_noise_is_normal_and_uncorrelated() -> None:
    noise = ground_noise(1, 0, torch.tensor([[0, 0]]), 4, 256, 256)[0].double()
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.1
    for shifted in (noise.roll(1, -1), noise.roll(1, -2), noise.roll(1, 0)):
        assert abs((noise * shifted).mean()) < 0.01


def test_what_is_prepared_once_equals_what_is_computed_at_every_step(inputs: tuple) -> None:
    """The plain form: keys and values made anew from concatenated features, a full pass for every prediction."""
    image, coarse, _ = inputs
    refiner = tiny(self_conditioning=False)
    timestep = torch.tensor(500)
    with torch.no_grad():
        latents = torch.randn(3, refiner.latent_channels, 8, 8)
        got = refiner(latents, timestep, refiner.prepare(image, coarse), guidance=2.0)
        plain = plain_prediction(refiner, image, refiner.encode_labels(coarse), latents, timestep, guidance=2.0)
    torch.testing.assert_close(got, plain, atol=1e-4, rtol=1e-4)


def test_residuals_start_at_zero_beside_a_pretrained_denoiser() -> None:
    net = GuidanceNet([8, 16], [4, 2], 8, 2, 1)
    image = [torch.randn(1, 8, 4, 4), torch.randn(1, 16, 2, 2)]
    for residual in net(image, net.prepare(image, image)):
        assert not residual.any()


def test_ids_and_their_one_hot_probabilities_are_the_same_coarse_map(inputs: tuple) -> None:
    refiner = tiny()
    coarse = inputs[1]
    planes = torch.nn.functional.one_hot(coarse, CLASSES).movedim(-1, 1).float()
    torch.testing.assert_close(refiner.encode_labels(coarse), refiner.encode_labels(planes))


def test_a_full_vote_of_the_coarse_map_keeps_it(inputs: tuple) -> None:
    refined = sample(tiny(), *inputs, SamplerConfig(steps=1, samples=1, coarse_vote=1.01))
    assert torch.equal(refined.probabilities.argmax(1), inputs[1])


@pytest.mark.parametrize("k", range(8))
def test_dihedral_undone(k: int) -> None:
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(inverse_dihedral(dihedral(x, k), k), x)


def test_saved_and_loaded(tmp_path: Path, inputs: tuple) -> None:
    refiner, settings = tiny(), SamplerConfig(steps=1, samples=1)
    refiner.save_pretrained(tmp_path)
    again = Refiner.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(
        sample(again, *inputs, settings).probabilities, sample(refiner, *inputs, settings).probabilities
    )


def test_schedules_end_in_noise_and_start_clean() -> None:
    for kind in ("scaled_linear", "cosine"):
        alphas = build_schedule(RefinerConfig(schedule=kind)).alphas_cumprod
        assert alphas[0] > 0.99 and alphas[-1] < 0.01
