"""Stage 1: trains a discriminative backbone with cross-entropy and Dice loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from idgbr.config.tree import Experiment
from idgbr.datasets.normalisation import Normalisation
from idgbr.models.coarse import build_coarse, padded_logits
from idgbr.models.package import load_part
from idgbr.training.losses import cross_entropy_sum, dice
from idgbr.training.task import Batch, confusion_counts, load_matching


class CoarseTask:
    """Trains the backbone on image and label.

    Args:
        config: The experiment.
        bands: Image bands.
        normalisation: Unused; batches are already normalised.
        init: Model folder, or file of weights, to start from.
    """

    def __init__(self, config: Experiment, bands: int, normalisation: Normalisation, init: str | None = None) -> None:
        self.step = 0
        self.classes = len(config.data.classes)
        self.dice_weight = config.coarse.dice_weight
        self.model = build_coarse(config.coarse, self.classes, bands, pretrained=init is None)
        if init is not None:
            load_matching(self.model, load_part(init, "coarse"), init)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of cross-entropy and Dice loss, and its weight; both are zero for a batch without valid pixels."""
        logits = padded_logits(self.model, batch["image"])
        loss, weight = cross_entropy_sum(logits, batch["label"])
        return loss + self.dice_weight * weight * dice(logits, batch["label"]), weight

    @torch.no_grad()
    def measure(self, batch: Batch) -> Tensor:
        """Confusion counts of the backbone's map."""
        return confusion_counts(padded_logits(self.model, batch["image"]).argmax(1), batch["label"], self.classes)

    def state_dict(self) -> dict[str, Any]:
        return self.model.state_dict()

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)
