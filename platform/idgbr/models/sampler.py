"""From noise to a refined map: a guided loop over latents, several samples averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from idgbr.config.models import SamplerConfig
from idgbr.dihedral import dihedral, inverse_dihedral
from idgbr.models.guard import guarded, voted
from idgbr.models.mean_field import mean_field, smooth
from idgbr.models.refiner import Guide, Refiner
from idgbr.models.schedule import Steps

OnStep = Callable[[int, int, Tensor], None]
"""Called after every step with the index of the sample, the index of the step, and the current estimate of the class
probabilities (N, K, H, W)."""


@dataclass
class Refined:
    """Result of the sampler.

    Attributes:
        probabilities: (N, K, H, W), mean over the samples, after coarse vote, mean field, smoothing and guard.
        uncertainty: (N, H, W) in 0..1: one minus the mean probability of the most probable class, before coarse vote,
            mean field, smoothing and guard.
        disagreement: (N, H, W) in 0..1: the between-sample part of the Gini impurity of the mean probabilities; 0 where
            all samples have the same probabilities, and if there is only one sample.
    """

    probabilities: Tensor
    uncertainty: Tensor
    disagreement: Tensor


@torch.no_grad()
def sample(
    refiner: Refiner,
    image: Tensor,
    coarse: Tensor,
    origins: Tensor,
    settings: SamplerConfig,
    on_step: OnStep | None = None,
    valid: Tensor | None = None,
) -> Refined:
    """Refine windows.

    Args:
        refiner: The network.
        image: (N, B, H, W), normalised, H and W multiples of the latent stride.
        coarse: (N, H, W) class ids or (N, K, H, W) probabilities.
        origins: (N, 2) absolute scene row and column of each window's first pixel.
        settings: Settings of the sampler: steps, samples, guidance and others.
        on_step: Called after every step.
        valid: (N, H, W) bool, True where the image has data; default: everywhere.
    """
    total = squares = torch.zeros(())
    guide: Guide | None = None
    for index in range(settings.samples):
        turn = index % 8 if settings.dihedral else 0
        turned = dihedral(coarse, turn)
        if turn or guide is None:
            guide = refiner.prepare(dihedral(image, turn), turned)
        noise = dihedral(start_noise(refiner, settings.seed, index, origins, image), turn)
        callback = None if on_step is None else _bind(on_step, index, turn)
        probabilities = denoise(refiner, guide, noise, settings, turned, callback)
        probabilities = inverse_dihedral(probabilities, turn).float()
        total = total.to(probabilities.device) + probabilities
        squares = squares.to(probabilities.device) + probabilities.square().sum(1)
    mean = total / settings.samples
    disagreement = (squares / settings.samples - mean.square().sum(1)).clamp(min=0)
    agreed = mean_field(voted(mean, coarse, settings.coarse_vote), image, settings.mean_field, valid)
    agreed = smooth(agreed, settings.smoothing, valid)
    return Refined(guarded(agreed, disagreement, coarse, settings), 1 - mean.amax(1), disagreement)


def start_noise(refiner: Refiner, seed: int, index: int, origins: Tensor, image: Tensor) -> Tensor:
    """Starting noise of one sample in the orientation of the scene, before it is rearranged into latents.

    Depending on the codec (see its `start_noise`), there is one value per pixel and plane, or one per latent value.
    """
    return refiner.codec.start_noise(seed, index, origins, refiner.embedding.channels, *image.shape[-2:])


def denoise(
    refiner: Refiner,
    guide: Guide,
    noise: Tensor,
    settings: SamplerConfig,
    coarse: Tensor | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Run the guided denoising loop: from starting noise to class probabilities (N, K, H, W).

    Args:
        refiner: The network.
        guide: Result of the refiner's `prepare`.
        noise: Result of `start_noise`.
        settings: Solver, steps, guidance.
        coarse: (N, H, W) class ids or (N, K, H, W) probabilities; required if the loop starts from the coarse map.
        on_step: Called after every step with its index and the class probabilities.
    """
    latents = refiner.codec.noise_latents(noise)
    if refiner.settings.objective == "one_shot":
        one_shot = refiner.label_logits(refiner.at_once(latents, guide)).float().softmax(1)
        if on_step is not None:
            on_step(0, one_shot)
        return one_shot
    steps = Steps(refiner.settings, settings, latents.device)
    if settings.start == "coarse":
        if coarse is None:
            raise ValueError("a start from the coarse map needs the coarse map")
        latents = steps.noised(refiner.encode_labels(coarse).float(), latents)
    latents, probabilities = follow(refiner, guide, latents, steps, settings, on_step)
    return probabilities if probabilities is not None else decode(refiner, latents)


def follow(
    refiner: Refiner,
    guide: Guide,
    latents: Tensor,
    steps: Steps,
    settings: SamplerConfig,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Apply the solver's steps to noisy latents.

    Args:
        refiner: The network.
        guide: Result of the refiner's `prepare`.
        latents: (N, L, h, w) noisy latents, the input of the first step.
        steps: The solver's steps.
        settings: Guidance scale and its interval.
        on_step: Called after every step with its index and the class probabilities.

    Returns:
        The clean latents (N, L, h, w), and the class probabilities (N, K, H, W) of the last step if the refiner's
        prediction is `label`, else None.
    """
    clean: Tensor | None = None
    probabilities: Tensor | None = None
    first, last = settings.guidance_interval
    for step, timestep in enumerate(steps.timesteps):
        share = step / len(steps.timesteps)
        scale = settings.guidance if first <= share and (share < last or last == 1) else 1.0
        output = refiner(latents, timestep, guide, clean, scale).float()
        if refiner.settings.prediction == "label":
            probabilities = refiner.label_logits(output).softmax(1)
            output = refiner.encode_labels(probabilities).float()
        latents, clean = steps.step(output, timestep, latents)
        if on_step is not None:
            on_step(step, probabilities if probabilities is not None else decode(refiner, clean))
    return latents, probabilities


def decode(refiner: Refiner, latents: Tensor) -> Tensor:
    """Latents (N, L, h, w) to class probabilities (N, K, H, W)."""
    return refiner.embedding.decode(refiner.codec.decode(latents)).float().softmax(1)


def _bind(on_step: OnStep, index: int, turn: int) -> Callable[[int, Tensor], None]:
    return lambda step, probabilities: on_step(index, step, inverse_dihedral(probabilities, turn))
