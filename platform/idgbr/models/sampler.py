"""From noise to a refined map: guided DDIM over latents, several samples averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from idgbr.config.tree import RefinerConfig, SamplerConfig
from idgbr.dihedral import dihedral, inverse_dihedral
from idgbr.models.guidance import PreparedCondition
from idgbr.models.latent_codec import KlVaeCodec
from idgbr.models.noise import ground_noise
from idgbr.models.refiner import Refiner

OnStep = Callable[[int, int, Tensor], None]
"""Called after every step with sample, step and the class probabilities (N, K, H, W) so far."""


def build_schedule(settings: RefinerConfig, spacing: str = "leading") -> DDIMScheduler:
    """The noise schedule of training and sampling: scaled-linear as in the paper, or cosine."""
    kind = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample", "label": "sample"}[settings.prediction]
    return DDIMScheduler(
        num_train_timesteps=settings.train_timesteps,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear" if settings.schedule == "scaled_linear" else "squaredcos_cap_v2",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=kind,
        timestep_spacing=spacing,
    )


@dataclass
class Refined:
    """Result of the sampler.

    Attributes:
        probabilities: (N, K, H, W), mean over the samples, the coarse map's vote included.
        uncertainty: (N, H, W) in 0..1: one minus the mean probability of the likeliest class.
    """

    probabilities: Tensor
    uncertainty: Tensor


@torch.no_grad()
def sample(
    refiner: Refiner,
    image: Tensor,
    coarse: Tensor,
    origins: Tensor,
    settings: SamplerConfig,
    on_step: OnStep | None = None,
) -> Refined:
    """Refine windows.

    Args:
        refiner: The network.
        image: (N, B, H, W), normalised, H and W multiples of the latent stride.
        coarse: (N, H, W) class ids or (N, K, H, W) probabilities.
        origins: (N, 2) absolute scene row and column of each window's first pixel.
        settings: Steps, samples, guidance and the rest.
        on_step: Progress.
    """
    total: Tensor | None = None
    prepared: list[PreparedCondition] | None = None
    for index in range(settings.samples):
        turn = index % 8 if settings.dihedral else 0
        if turn or prepared is None:
            prepared = refiner.prepare(dihedral(image, turn), dihedral(coarse, turn))
        noise = dihedral(start_noise(refiner, settings.seed, index, origins, image), turn)
        callback = None if on_step is None else _bind(on_step, index, turn)
        probabilities = inverse_dihedral(denoise(refiner, prepared, noise, settings, callback), turn)
        total = probabilities if total is None else total + probabilities
    assert total is not None
    mean = total / settings.samples
    uncertainty = 1 - mean.amax(1)
    if settings.coarse_vote:
        vote = coarse if coarse.ndim == 4 else one_hot(coarse, refiner.classes)
        mean = (mean + settings.coarse_vote * vote) / (1 + settings.coarse_vote)
    return Refined(mean, uncertainty)


def start_noise(refiner: Refiner, seed: int, index: int, origins: Tensor, image: Tensor) -> Tensor:
    """Starting latents (N, L, h, w) of one sample, in the scene's own orientation.

    The lossless codec draws a value per pixel and plane and folds it as it folds labels, so windows at any offset
    agree; the autoencoder draws per latent cell. Returned unfolded for the former, so that turns act on pixels.
    """
    height, width = image.shape[-2:]
    if isinstance(refiner.codec, KlVaeCodec):
        stride = refiner.codec.stride
        cells = torch.div(origins, stride, rounding_mode="floor")
        return ground_noise(seed, index, cells, refiner.latent_channels, height // stride, width // stride)
    return ground_noise(seed, index, origins, refiner.embedding.channels, height, width)


def denoise(
    refiner: Refiner,
    prepared: list[PreparedCondition],
    noise: Tensor,
    settings: SamplerConfig,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """The guided DDIM loop: starting noise to class probabilities (N, K, H, W).

    Args:
        refiner: The network.
        prepared: Its conditions.
        noise: What `start_noise` gave.
        settings: Steps, guidance, spacing.
        on_step: Called with step and probabilities.
    """
    schedule = build_schedule(refiner.settings, settings.spacing)
    schedule.set_timesteps(settings.steps, device=noise.device)
    latents = noise if isinstance(refiner.codec, KlVaeCodec) else refiner.codec.encode(noise)
    clean: Tensor | None = None
    probabilities: Tensor | None = None
    for step, timestep in enumerate(schedule.timesteps):
        output = refiner(latents, timestep, prepared, clean, settings.guidance).float()
        if refiner.settings.prediction == "label":
            probabilities = refiner.label_logits(output).softmax(1)
            output = refiner.encode_labels(probabilities)
        moved = schedule.step(output, int(timestep), latents)
        latents, clean = moved.prev_sample, moved.pred_original_sample
        if on_step is not None:
            on_step(step, probabilities if probabilities is not None else decode(refiner, clean))
    return probabilities if probabilities is not None else decode(refiner, latents)


def decode(refiner: Refiner, latents: Tensor) -> Tensor:
    """Latents (N, L, h, w) to class probabilities (N, K, H, W)."""
    return refiner.embedding.decode(refiner.codec.decode(latents)).softmax(1)


def one_hot(ids: Tensor, classes: int) -> Tensor:
    """Class ids (N, H, W) to (N, K, H, W) float; ignored pixels are all zero."""
    planes = torch.arange(classes, device=ids.device).view(1, -1, 1, 1)
    return (ids.unsqueeze(1) == planes).float()


def _bind(on_step: OnStep, index: int, turn: int) -> Callable[[int, Tensor], None]:
    return lambda step, probabilities: on_step(index, step, inverse_dihedral(probabilities, turn))
