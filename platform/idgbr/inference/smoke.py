"""A model's own smoke test: it must map the sample that travels with it as it did when it was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from idgbr import IGNORE
from idgbr.errors import UserError
from idgbr.inference.predictor import Predictor
from idgbr.models.description import load_sample

AGREEMENT = 0.95
"""Smallest share of equal pixels. Another processor or precision moves pixels at boundaries; a broken model, most."""


def smoke_test(folder: str | Path, predictor: Predictor) -> float | None:
    """Runs the sample of a model folder through both stages.

    Args:
        folder: The model folder.
        predictor: Loaded from it, both stages.

    Returns:
        Share of pixels that are as expected; None where the folder has no sample, or not both stages.

    Raises:
        UserError: The map is not the expected one.
    """
    sample = load_sample(folder)
    if sample is None or predictor.coarse_model is None or predictor.refiner is None:
        return None
    images = sample.image[None]
    valid = np.isfinite(images).all(1)
    refined = predictor.refine(images, valid, predictor.coarse(images, valid), np.zeros((1, 2), np.int64))
    known = sample.expected != IGNORE
    same = float((refined.probabilities[0].argmax(0) == sample.expected)[known].mean())
    if not same >= AGREEMENT:
        raise UserError(
            f"{folder}: maps its own sample wrongly ({same:.0%} of the pixels agree, expected at least "
            f"{AGREEMENT:.0%}); its weights are not those it was registered with, or this machine computes differently"
        )
    return same
