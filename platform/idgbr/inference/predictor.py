"""Predict a batch of windows. Jobs and the service both call this module to run either stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from idgbr import IGNORE
from idgbr.config.models import SamplerConfig
from idgbr.config.node import Precision
from idgbr.errors import UserError
from idgbr.models.coarse import padded_logits
from idgbr.models.guard import one_hot
from idgbr.models.package import load_model
from idgbr.models.precision import autocast
from idgbr.raster.windows import ANCHOR

if TYPE_CHECKING:
    from idgbr.models.sampler import OnStep

Part = Literal["coarse", "refiner"]

MIN_CONTEXT_PX = 128
"""Smallest side in pixels of the input of stage 1 if only a part of a window has data; some decoders accept no less."""


@dataclass(frozen=True)
class RefinedBatch:
    """Refined windows.

    Attributes:
        probabilities: (N, K, H, W) float32, after the guard.
        uncertainty: (N, H, W) float32 in 0..1.
        disagreement: (N, H, W) float32 in 0..1, disagreement between the samples.
    """

    probabilities: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    disagreement: NDArray[np.float32]


class Predictor:
    """A loaded model folder that turns windows into class probabilities.

    Args:
        folder: Model folder.
        device: torch device.
        precision: auto, fp32, bf16 or fp16 arithmetic; default: the precision in the model's settings.
        threads: torch threads of this process; None does not change their number.
        parts: Which stages to load.

    Raises:
        UserError: The folder is not a model folder, or lacks a requested part.
    """

    def __init__(
        self,
        folder: str | Path,
        device: str = "cpu",
        precision: Precision | None = None,
        threads: int | None = 1,
        parts: Sequence[Part] = ("coarse", "refiner"),
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = torch.device(device)
        model = load_model(folder, parts)
        self.spec = model.spec
        self.coarse_model = None if model.coarse is None else model.coarse.to(self.device).eval()
        self.refiner = None if model.refiner is None else model.refiner.to(self.device).eval()
        self.precision: Precision = precision or self.spec.inference.precision

    @torch.inference_mode()
    def coarse(self, images: NDArray, valid: NDArray) -> NDArray[np.float32]:
        """Class probabilities of stage 1, (N, K, H, W); uniform where a window extends beyond its scene.

        The part of a window beyond the scene is cropped before the network runs: a network trained on windows inside
        scenes makes 1.5 times as many errors next to such a part as at the edge of a window.

        Args:
            images: (N, B, H, W) in the data type of the imagery.
            valid: (N, H, W) bool, True where the image has data.
        """
        if self.coarse_model is None:
            raise UserError("this model has no stage 1: give a coarse map")
        normalised = self._normalised(images, valid)
        classes, min_side = len(self.spec.classes), min(MIN_CONTEXT_PX, *valid.shape[1:])
        probabilities = np.full((len(images), classes, *valid.shape[1:]), 1 / classes, np.float32)
        alike: dict[tuple[int, int, int, int], list[int]] = defaultdict(list)
        for index, mask in enumerate(valid):
            if mask.any():
                alike[_extent(mask)].append(index)
        for (top, bottom, left, right), indices in alike.items():
            with self._autocast():
                logits = padded_logits(self.coarse_model, normalised[indices, :, top:bottom, left:right], min_side)
            probabilities[indices, :, top:bottom, left:right] = logits.float().softmax(1).cpu().numpy()
        return probabilities

    @torch.inference_mode()
    def refine(
        self,
        images: NDArray,
        valid: NDArray,
        coarse: NDArray,
        origins: NDArray,
        sampler: SamplerConfig | None = None,
        on_step: OnStep | None = None,
    ) -> RefinedBatch:
        """Refined class probabilities.

        Args:
            images: (N, B, H, W) in the data type of the imagery.
            valid: (N, H, W) bool, True where the image has data.
            coarse: (N, H, W) uint8 class ids, or (N, K, H, W) probabilities in 0..1.
            origins: (N, 2) absolute scene row and column of each window's first pixel.
            sampler: Settings of the sampler; default: the model's.
            on_step: Called after every step, see `models.sampler.OnStep`.

        Raises:
            UserError: The coarse map has a class id that the model does not have.
        """
        if self.refiner is None:
            raise UserError("this model has no stage 2")
        from idgbr.models.sampler import sample  # imports the refiner, which takes seconds: only if stage 2 is loaded

        height, width = images.shape[-2:]
        image = self._padded(self._normalised(images, valid))
        known = torch.zeros_like(image[:, 0], dtype=torch.bool)  # padding has no data
        known[:, :height, :width] = torch.from_numpy(np.array(valid, bool)).to(self.device)
        guide = self._padded(self._coarse_tensor(coarse))
        origin = torch.from_numpy(np.array(origins, np.int64)).to(self.device)
        with self._autocast():
            refined = sample(self.refiner, image, guide, origin, sampler or self.spec.sampler, on_step, known)
        planes = (refined.probabilities, refined.uncertainty, refined.disagreement)
        return RefinedBatch(*(plane[..., :height, :width].float().cpu().numpy() for plane in planes))

    def _coarse_tensor(self, coarse: NDArray) -> Tensor:
        assert self.refiner is not None
        classes = self.refiner.classes
        probabilities = self.refiner.settings.coarse_input == "probabilities"
        if coarse.ndim == 4:
            planes = torch.from_numpy(np.array(coarse, np.float32)).to(self.device)
            return planes if probabilities else planes.argmax(1)
        unknown = np.setdiff1d(np.unique(coarse), [*range(classes), IGNORE])
        if unknown.size:
            raise UserError(
                f"coarse map: class id {int(unknown[0])} is unknown; the model has ids 0..{classes - 1} "
                f"({', '.join(c.name for c in self.spec.classes)}), {IGNORE} is nodata"
            )
        ids = torch.from_numpy(np.array(coarse, np.int64)).to(self.device)
        return one_hot(ids, classes) if probabilities else ids

    def _normalised(self, images: NDArray, valid: NDArray) -> Tensor:
        return torch.from_numpy(self.spec.normalisation.apply(images, valid)).to(self.device)

    def _padded(self, x: Tensor) -> Tensor:
        """Pad the bottom and right edges by replication, to a multiple of the cell of the refiner's coarsest grid."""
        assert self.refiner is not None
        multiple = self.refiner.codec.stride * 2 ** (len(self.refiner.settings.channels) - 1)
        height, width = x.shape[-2:]
        down, right = -height % multiple, -width % multiple
        if not (down or right):
            return x
        planes = x if x.ndim == 4 else x.unsqueeze(1).float()
        planes = functional.pad(planes, (0, right, 0, down), mode="replicate")
        return planes if x.ndim == 4 else planes.squeeze(1).to(x.dtype)

    def _autocast(self) -> torch.autocast:
        return autocast(self.precision, self.device)


def _extent(valid: NDArray) -> tuple[int, int, int, int]:
    """Bounding box of the pixels of (H, W) that have data: first and end row, first and end column, ends exclusive.

    The first row and column are rounded down to multiples of `ANCHOR`, so that the network's strides fall on the same
    pixels as in whole windows.
    """
    rows, cols = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    top, left = rows[0] - rows[0] % ANCHOR, cols[0] - cols[0] % ANCHOR
    return int(top), int(rows[-1]) + 1, int(left), int(cols[-1]) + 1
