"""Noise schedules and solvers: diffusers' schedulers with the settings of an experiment.

DDIM: Song, Meng and Ermon, "Denoising diffusion implicit models", 2021, equation 12 without added noise.
"""

from __future__ import annotations

import itertools

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from idgbr.config.models import RefinerConfig, SamplerConfig
from idgbr.errors import UserError

_KINDS = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample", "label": "sample"}


def build_schedule(settings: RefinerConfig, spacing: str = "leading") -> DDIMScheduler:
    """The noise schedule of training and of DDIM: scaled-linear as in the paper, or cosine."""
    return DDIMScheduler(**_common(settings, spacing), clip_sample=False, set_alpha_to_one=False)


class Steps:
    """The steps of one denoising loop.

    Attributes:
        timesteps: (steps,) int64, from noisy to clean.
    """

    def __init__(self, settings: RefinerConfig, sampler: SamplerConfig, device: object = "cpu") -> None:
        """Plans the steps.

        Args:
            settings: The refiner's schedule.
            sampler: Solver, spacing, number of steps, start.
            device: Where the latents are.

        Raises:
            UserError: The solver cannot make this number of steps with this spacing.
        """
        if sampler.solver == "ddim":
            self.solver = build_schedule(settings, sampler.spacing)
        else:
            self.solver = DPMSolverMultistepScheduler(
                **_common(settings, sampler.spacing), algorithm_type="dpmsolver++", solver_order=2
            )
        total = settings.train_timesteps
        # A start from the coarse map uses the last steps of a longer loop, so that their number is as configured.
        strength = sampler.strength if sampler.start == "coarse" else 1.0
        count = max(sampler.steps, round(sampler.steps / strength))
        if count <= total:
            self.solver.set_timesteps(count, device=device)
        timesteps = self.solver.timesteps[-sampler.steps :]
        # `leading` rounds the step size down: it may start far below pure noise, or run over the end.
        begin = strength * total - (total / count if sampler.spacing == "leading" else 0)
        if count > total or not begin - total / 10 <= int(timesteps[0]) < total:
            raise UserError(
                f"sampler.steps: found {sampler.steps}, started from {sampler.start}; {sampler.solver} with "
                f"{sampler.spacing} spacing has not so many distinct steps in a schedule of {total} timesteps, or does "
                "not begin at noise. Use fewer steps, or spacing trailing"
            )
        if sampler.solver != "ddim":
            self.solver.set_begin_index(len(self.solver.timesteps) - len(timesteps))
        self.timesteps: Tensor = timesteps
        self._alphas = self.solver.alphas_cumprod.to(timesteps.device)
        self._next = dict(itertools.pairwise(timesteps.tolist()))
        self._kind = settings.prediction

    def noised(self, clean: Tensor, noise: Tensor) -> Tensor:
        """Add the noise of the first step to clean latents."""
        alpha = self._alphas[self.timesteps[0]]
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise

    def step(self, output: Tensor, timestep: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the solver: from prediction and latents to the next latents and the predicted clean latents."""
        alpha = self._alphas[timestep]
        clean = predicted_clean(self._kind, output, latents, alpha)
        if not isinstance(self.solver, DDIMScheduler):
            return self.solver.step(output, timestep, latents).prev_sample, clean
        # The scheduler's `step` assumes steps of length T // steps, which is wrong if steps does not divide T.
        following = self._next.get(int(timestep))
        after = self.solver.final_alpha_cumprod if following is None else self._alphas[following]
        noise = (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        return after.sqrt() * clean + (1 - after).sqrt() * noise, clean


def predicted_clean(kind: str, output: Tensor, noisy: Tensor, alpha: Tensor) -> Tensor:
    """The clean latents that a prediction implies.

    Args:
        kind: epsilon | v | sample | label (whose output is clean latents already).
        output: What the denoiser predicts, as `noisy`.
        noisy: (N, L, h, w) noisy latents.
        alpha: Cumulative product of the schedule at their timestep, broadcastable.
    """
    if kind in ("sample", "label"):
        return output
    if kind == "v":
        return alpha.sqrt() * noisy - (1 - alpha).sqrt() * output
    return (noisy - (1 - alpha).sqrt() * output) / alpha.sqrt()


def _common(settings: RefinerConfig, spacing: str) -> dict[str, object]:
    return {
        "num_train_timesteps": settings.train_timesteps,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear" if settings.schedule == "scaled_linear" else "squaredcos_cap_v2",
        "steps_offset": 1,
        "prediction_type": _KINDS[settings.prediction],
        "timestep_spacing": spacing,
    }
