"""The sampler's choices: solver, spacing, guidance, start, samples; and what never depends on any of them."""

from __future__ import annotations

import pytest
import torch

from idgbr.config.models import RefinerConfig, SamplerConfig
from idgbr.errors import UserError
from idgbr.models.refiner import Refiner
from idgbr.models.sampler import sample
from idgbr.models.schedule import Steps, build_schedule

CLASSES = 3
PLAIN = {"samples": 1, "dihedral": False}


def tiny(**keys: object) -> Refiner:
    settings = {"window": 32, "channels": [16, 32], "guidance_width": 16, "guidance_heads": 2, "condition_depth": 1}
    settings |= {"attention_head_dim": 8, "image_encoder": "", "self_conditioning": False}
    torch.manual_seed(0)
    return Refiner(CLASSES, 3, RefinerConfig(**{**settings, **keys}).model_dump()).eval()


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 3, 32, 32), torch.randint(0, CLASSES, (3, 32, 32)), torch.tensor([[0, 0], [40, 8], [99, 77]])


def leading_has(solver: str, steps: int) -> bool:
    """Steps of 1000 // n each, offset by one, that begin within a tenth of where they should."""
    length = 1000 // (steps + (solver != "ddim"))
    begin = length * (steps - (solver == "ddim")) + 1
    return begin < 1000 and begin >= 900 - 1000 / steps


@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 25, 50, 333, 999, 1000])
@pytest.mark.parametrize("start", ["noise", "coarse"])
def test_every_number_of_steps_is_taken_or_refused(solver: str, spacing: str, steps: int, start: str) -> None:
    settings = SamplerConfig(solver=solver, spacing=spacing, steps=steps, start=start, strength=0.5)
    if start == "coarse" and steps > 500:
        with pytest.raises(UserError, match=f"found {steps}"):
            Steps(RefinerConfig(), settings)
        return
    if spacing == "leading" and not leading_has(solver, steps * (2 if start == "coarse" else 1)):
        with pytest.raises(UserError, match="spacing trailing"):
            Steps(RefinerConfig(), settings)
        return
    timesteps = Steps(RefinerConfig(), settings).timesteps
    assert len(timesteps) == steps
    assert bool((timesteps.diff() < 0).all()) and int(timesteps[-1]) >= 0 and int(timesteps[0]) < 1000
    if start == "coarse":
        assert int(timesteps[0]) <= 0.55 * 1000


@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++"])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
def test_a_perfect_denoiser_is_followed_to_the_clean_latents(solver: str, prediction: str) -> None:
    """Whatever the prediction type, what the true answer stands for is the clean latents, at every step."""
    settings = RefinerConfig(prediction=prediction, schedule="scaled_linear")
    steps = Steps(settings, SamplerConfig(solver=solver, steps=7))
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    alphas = build_schedule(settings).alphas_cumprod
    latents = steps.noised(clean, noise)
    for timestep in steps.timesteps:
        a, s = alphas[timestep].sqrt(), (1 - alphas[timestep]).sqrt()
        implied = (latents - a * clean) / s
        output = {"epsilon": implied, "v": a * implied - s * clean, "sample": clean}[prediction]
        latents, seen = steps.step(output, timestep, latents)
        torch.testing.assert_close(seen, clean, atol=1e-4, rtol=1e-4)
    assert (latents - clean).abs().max() < 0.15  # DDIM ends at the schedule's first timestep, not at none


@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++"])
@pytest.mark.parametrize("start", ["noise", "coarse"])
def test_a_tile_does_not_depend_on_its_batch(solver: str, start: str, inputs: tuple) -> None:
    image, coarse, origins = inputs
    settings = SamplerConfig(steps=3, samples=2, guidance=1.5, solver=solver, start=start, keep_disagreement=0.4)
    refiner = tiny()
    together = sample(refiner, image, coarse, origins, settings)
    for index in range(3):
        part = slice(index, index + 1)
        alone = sample(refiner, image[part], coarse[part], origins[part], settings)
        torch.testing.assert_close(together.probabilities[part], alone.probabilities, atol=1e-5, rtol=0)
        torch.testing.assert_close(together.disagreement[part], alone.disagreement, atol=1e-5, rtol=0)


def test_a_tile_does_not_depend_on_its_batch_in_half_precision(inputs: tuple) -> None:
    """Sums may be taken in another order; nothing else may change, so labels stay but for exact ties."""
    image, coarse, origins = inputs
    refiner, settings = tiny(), SamplerConfig(steps=2, samples=2)
    with torch.autocast("cpu", torch.bfloat16):
        together = sample(refiner, image, coarse, origins, settings).probabilities
        alone = sample(refiner, image[1:2], coarse[1:2], origins[1:2], settings).probabilities
    torch.testing.assert_close(together[1:2], alone, atol=0.03, rtol=0)
    assert (together[1:2].argmax(1) == alone.argmax(1)).float().mean() > 0.98


def test_guidance_holds_on_its_interval_only(inputs: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    refiner, scales = tiny(), []
    forward = Refiner.forward

    def noted(
        self: Refiner, noisy: object, timestep: object, prepared: object, previous: object, scale: float
    ) -> object:
        scales.append(scale)
        return forward(self, noisy, timestep, prepared, previous, scale)

    monkeypatch.setattr(Refiner, "forward", noted)
    sample(refiner, *inputs, SamplerConfig(steps=5, guidance=3.0, guidance_interval=[0.2, 0.6], **PLAIN))
    assert scales == [1.0, 3.0, 3.0, 1.0, 1.0]


def test_guidance_of_any_scale_is_linear_in_the_two_predictions(inputs: tuple) -> None:
    refiner, timestep = tiny(), torch.tensor(700)
    noisy = torch.randn(3, refiner.latent_channels, 8, 8)
    with torch.no_grad():
        prepared = refiner.prepare(*inputs[:2])
        plain, guided = (refiner(noisy, timestep, prepared, guidance=scale) for scale in (0.0, 1.0))
        assert (plain - guided).abs().max() > 1e-3
        for scale in (-0.5, 0.5, 3.0):
            got = refiner(noisy, timestep, prepared, guidance=scale)
            torch.testing.assert_close(got, plain + scale * (guided - plain), atol=1e-5, rtol=1e-4)


def test_little_noise_on_the_coarse_map_leaves_it(inputs: tuple) -> None:
    """Untrained, predicting the latents it is given: what the loop began with is what comes out."""
    refiner = tiny(prediction="sample", schedule="scaled_linear")
    coarse = inputs[1]
    with torch.no_grad():
        steps = Steps(refiner.settings, SamplerConfig(steps=1, start="coarse", strength=0.01))
        clean = refiner.encode_labels(coarse)
        latents = steps.noised(clean, torch.randn_like(clean))
        said = refiner.embedding.decode(refiner.codec.decode(latents)).argmax(1)
    assert int(steps.timesteps[0]) <= 10
    assert (said == coarse).float().mean() > 0.99


def test_samples_differ_and_their_disagreement_is_that_of_the_definition(inputs: tuple) -> None:
    refiner = tiny()
    settings = SamplerConfig(steps=2, samples=3, dihedral=False)
    seen: dict[int, torch.Tensor] = {}
    refined = sample(refiner, *inputs, settings, lambda index, step, p: seen.update({index: p}))
    samples = torch.stack([seen[index] for index in range(3)])
    assert (samples[0] - samples[1]).abs().max() > 1e-3
    torch.testing.assert_close(refined.probabilities, samples.mean(0))
    variance = samples.var(0, unbiased=False).sum(1)
    torch.testing.assert_close(refined.disagreement, variance, atol=1e-5, rtol=0)
    assert sample(refiner, *inputs, SamplerConfig(steps=1, samples=1)).disagreement.max() < 1e-5


def test_the_control_answers_from_image_and_coarse_map_alone(inputs: tuple) -> None:
    image, coarse, origins = inputs
    refiner = tiny(objective="one_shot")
    calls: list[tuple[int, int]] = []
    settings = SamplerConfig(steps=9, **PLAIN)
    first = sample(refiner, image, coarse, origins, settings, lambda index, step, p: calls.append((index, step)))
    other = sample(refiner, image, coarse, origins + 1000, settings.model_copy(update={"seed": 5}))
    assert calls == [(0, 0)]
    assert torch.equal(first.probabilities, other.probabilities)
    changed = sample(refiner, image + 1, coarse, origins, settings)
    assert (first.probabilities - changed.probabilities).abs().max() > 1e-4
