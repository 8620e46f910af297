"""Stage 2: denoise label latents under the guidance of image and coarse map.

Method: arXiv 2507.01573; the `label` prediction and self-conditioning are the small scale's recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from idgbr import IGNORE
from idgbr.boundaries import near_boundary
from idgbr.config.models import RefinerConfig
from idgbr.config.tree import Experiment
from idgbr.datasets.normalisation import Normalisation
from idgbr.errors import UserError
from idgbr.models.label_embedding import LearnedEmbedding
from idgbr.models.package import build_refiner, load_part
from idgbr.models.refiner import Guide, Refiner
from idgbr.models.sampler import sample
from idgbr.models.schedule import build_schedule, predicted_clean
from idgbr.training.alignment import align, without_head
from idgbr.training.label_embedding import train_label_embedding
from idgbr.training.losses import cross_entropy_sum, dice_sum
from idgbr.training.task import Batch, confusion_counts, load_matching

MEASURED_REACH = 5
"""Distance in pixels from the true boundaries within which validation measures, to choose between checkpoints."""


class RefinerTask:
    """Trains the refiner on image, coarse map and label.

    Args:
        config: The experiment.
        bands: Image bands.
        normalisation: Normalisation of the images, for the teacher of alignment; batches are already normalised.
        init: Model folder, or file of weights, to start from.
        backbone: Model folder whose stage 1 is the teacher, if alignment is configured so.
        model: A refiner to train as it is; default: a new refiner according to the settings and `init`.
    """

    def __init__(
        self,
        config: Experiment,
        bands: int,
        normalisation: Normalisation,
        init: str | None = None,
        backbone: str = "",
        model: Refiner | None = None,
    ) -> None:
        self.step = 0
        self.settings: RefinerConfig = config.refiner
        # A measurement only ranks the checkpoints of one run: one sample is enough for that.
        self.sampler = config.sampler.model_copy(update={"samples": 1, "dihedral": False})
        self.classes = len(config.data.classes)
        self.model = model or begin_refiner(self.settings, self.classes, bands, init)
        if init is not None:
            load_matching(self.model, load_part(init, "refiner"), init)
        if config.training.refiner.gradient_checkpointing:
            self.model.denoiser.enable_gradient_checkpointing()
        self.alignment = align(self.model, config.training.refiner.alignment, bands, normalisation, backbone)
        self.alphas = build_schedule(self.settings).alphas_cumprod

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss at one noise level per sample, summed over the valid pixels, and the sum of their weights.

        Timestep, noise and dropout of a sample depend on its seed only, not on batch, worker or machine.
        """
        label = batch["label"]
        coarse = at_odds(coarse_input(batch["coarse"], self.settings), self.settings.coarse_odds)
        clean = self.model.encode_labels(label)
        timestep, noise, unit = self._random(batch["seed"], clean)
        if self.settings.objective == "one_shot":
            # As in `Refiner.at_once`: no input from the label, and the timestep of pure noise.
            noisy, timestep = torch.zeros_like(clean), torch.full_like(timestep, self.settings.train_timesteps - 1)
        else:
            noisy = self._diffuse(clean, noise, timestep)
        guide = self.model.prepare(batch["image"], coarse)
        keep = (unit[:, 0] >= self.settings.condition_dropout).float() if self.settings.condition_dropout else None
        previous = self._previous(noisy, timestep, guide, keep, unit[:, 1])
        output = self.model(noisy, timestep, guide, previous, keep=keep)
        loss, weight = self._loss(output, clean, noise, timestep, label)
        if self.alignment is None:
            return loss, weight
        return loss + weight * self.alignment.loss(batch["image"], self.step), weight

    def _loss(
        self, output: Tensor, clean: Tensor, noise: Tensor, timestep: Tensor, label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss of the denoiser, summed over valid pixels or latent cells, and its weight."""
        if self.settings.prediction == "label":
            weight = None
            if self.settings.boundary_weight:
                weight = 1 + self.settings.boundary_weight * near_boundary(label, self.settings.boundary_reach).float()
            logits = self.model.label_logits(output)
            loss, total = cross_entropy_sum(logits, label, weight)
            if self.settings.dice_weight:
                loss = loss + self.settings.dice_weight * dice_sum(logits, label)
            return loss, total
        return self._squared_error(output, clean, noise, timestep, label)

    @torch.no_grad()
    def measure(self, batch: Batch) -> Tensor:
        """Confusion counts of the sampled map, only near the true boundaries.

        Elsewhere the result depends mostly on the coarse map: over all pixels, a half-trained refiner can rank best.
        """
        origins = torch.stack([batch["row"], batch["col"]], 1)
        coarse = coarse_input(batch["coarse"], self.settings)
        refined = sample(self.model, batch["image"], coarse, origins, self.sampler, valid=batch["valid"])
        label = batch["label"].masked_fill(~near_boundary(batch["label"], MEASURED_REACH), IGNORE)
        return confusion_counts(refined.probabilities.argmax(1), label, self.classes)

    def state_dict(self) -> dict[str, Any]:
        return self.model.state_dict()

    def weights(self) -> dict[str, Tensor]:
        """The refiner's weights without the head of the alignment loss."""
        return without_head(self.model.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)

    def _random(self, seeds: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Timestep (N,), noise as `like` and two uniform numbers per sample (N, 2), each from the sample's seed."""
        steps = self.settings.train_timesteps
        timesteps, noises, units = [], [], []
        for seed in seeds.tolist():
            generator = torch.Generator().manual_seed(seed)
            u = torch.rand(3, generator=generator)
            share = 1 - u[0] ** 3 if self.settings.timestep_sampling == "cubic" else u[0]
            timesteps.append(int((share * steps).clamp(max=steps - 1)))
            units.append(u[1:])
            noises.append(torch.randn(like.shape[1:], generator=generator))
        device = like.device
        return torch.tensor(timesteps, device=device), torch.stack(noises).to(like), torch.stack(units).to(device)

    def _diffuse(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        alpha = self.alphas.to(clean.device)[timestep].view(-1, 1, 1, 1).to(clean.dtype)
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise

    def _previous(self, noisy: Tensor, timestep: Tensor, guide: Guide, keep: Tensor | None, unit: Tensor) -> Any:
        """Self-conditioning: half of the samples get the estimate of a first pass, which is run without gradient."""
        if not self.settings.self_conditioning:
            return None
        with torch.no_grad():
            output = self.model(noisy, timestep, guide, None, keep=keep)
            estimate = self._clean(output, noisy, timestep)
        return estimate * (unit < 0.5).view(-1, 1, 1, 1).to(estimate.dtype)

    def _clean(self, output: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
        """The clean latents that a prediction implies."""
        if self.settings.prediction == "label":
            return self.model.encode_labels(self.model.label_logits(output.float()).softmax(1))
        alpha = self.alphas.to(noisy.device)[timestep].view(-1, 1, 1, 1).to(noisy.dtype)
        return predicted_clean(self.settings.prediction, output, noisy, alpha)

    def _squared_error(
        self, output: Tensor, clean: Tensor, noise: Tensor, timestep: Tensor, label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean squared error of the predicted quantity, over latent cells that hold a labelled pixel."""
        alpha = self.alphas.to(clean.device)[timestep].view(-1, 1, 1, 1).to(clean.dtype)
        target = {
            "epsilon": lambda: noise,
            "v": lambda: alpha.sqrt() * noise - (1 - alpha).sqrt() * clean,
            "sample": lambda: clean,
        }[self.settings.prediction]()
        stride = self.model.codec.stride
        cells = torch.nn.functional.avg_pool2d((label != IGNORE).float().unsqueeze(1), stride)
        error = (output.float() - target.float()).square().mean(1, keepdim=True)
        return (error * cells).sum(), cells.sum()


def begin_refiner(settings: RefinerConfig, classes: int, bands: int, init: str | None) -> Refiner:
    """Build the refiner from which training starts; its frozen parts already have their final weights.

    Raises:
        UserError: The frozen condition encoder or autoencoder would have random weights.
    """
    if init is None and (settings.codec == "kl-vae" or settings.condition_encoder == "unet"):
        raise UserError(
            "refiner.codec kl-vae and refiner.condition_encoder unet are Stable Diffusion's, and stay frozen: start "
            "from its weights. Convert them (jobs/convert.py sd), then pass the folder with --from"
        )
    model = build_refiner(classes, bands, settings, init is None, init)
    if isinstance(model.embedding, LearnedEmbedding):
        if init is None:
            model.embedding.load_state_dict(train_label_embedding(classes).state_dict())
        model.embedding.requires_grad_(False)
    return model


def coarse_input(coarse: Tensor, settings: RefinerConfig) -> Tensor:
    """Select the refiner's input from a coarse raster (N, 1 + K, H, W): class ids (N, H, W) or probabilities."""
    return coarse[:, 0].long() if settings.coarse_input == "ids" else coarse[:, 1:]


def at_odds(probabilities: Tensor, odds: Sequence[float]) -> Tensor:
    """Class probabilities (N, K, H, W) after the odds of each class were multiplied by a factor.

    Args:
        probabilities: sum to one over K; pixels whose probabilities are all zero stay so.
        odds: the factor of each class; if empty, nothing changes.
    """
    if not odds:
        return probabilities
    total = probabilities.sum(1, keepdim=True)
    weighed = probabilities * torch.tensor(odds).to(probabilities).view(1, -1, 1, 1)
    return weighed * (total / weighed.sum(1, keepdim=True).clamp(min=1e-6))
