"""The description of a model in its model folder; it is read quickly and without importing torch.

Drivers, the gateway of the service and the registry use it to get the classes, bands and defaults of a model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from idgbr.config.data import ClassSpec
from idgbr.config.inference import InferenceConfig
from idgbr.config.models import CoarseConfig, RefinerConfig, SamplerConfig
from idgbr.datasets.normalisation import Normalisation
from idgbr.errors import UserError
from idgbr.raster.values import ValueRange

FORMAT_VERSION = 1
SPEC_FILE = "model.json"
SAMPLE_FILE = "sample.npz"
SEEN_FILE = "seen.json"


class ModelSpec(BaseModel):
    """Everything about a model that is not a weight."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    name: str
    classes: list[ClassSpec]
    bands: list[int | str]
    gsd: float | None
    """Ground sample distance of the training imagery, metres per pixel."""
    normalisation: Normalisation
    values: ValueRange | None = None
    """Data type, and quantiles per band, of the training imagery; None in older models, which did not store them."""
    inference: InferenceConfig
    sampler: SamplerConfig
    coarse: CoarseConfig | None
    refiner: RefinerConfig | None
    metrics: dict[str, float] = {}
    """Figures on the test split."""
    provenance: dict[str, str] = {}
    """Data fingerprint, git commit, run and package versions."""

    @property
    def learnt_values(self) -> ValueRange:
        """Value range for checks of imagery: that of the training imagery, or an estimate from mean and deviation."""
        return self.values or ValueRange.assumed(self.normalisation.mean, self.normalisation.std)


@dataclass(frozen=True)
class Sample:
    """A small input and the map that the model made of it, for a smoke test of the model.

    Attributes:
        image: (B, H, W) in the imagery's dtype.
        expected: (H, W) uint8 class ids at the sampler's defaults, origin (0, 0).
    """

    image: NDArray
    expected: NDArray[np.uint8]


def load_spec(folder: str | Path) -> ModelSpec:
    """Read model.json.

    Raises:
        UserError: it is missing, or has a format that this release cannot read.
    """
    path = Path(folder) / SPEC_FILE
    if not path.is_file():
        raise UserError(f"{folder}: not a model folder, there is no {SPEC_FILE}. Expected what a training job wrote")
    try:
        return ModelSpec.model_validate_json(path.read_text())
    except ValidationError as error:
        raise UserError(f"{path}: not a model description this version reads ({error.errors()[0]['msg']})") from error


def load_sample(folder: str | Path) -> Sample | None:
    """The sample in the model folder; None if there is none."""
    path = Path(folder) / SAMPLE_FILE
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        return Sample(arrays["image"], arrays["expected"])


def load_seen(folder: str | Path) -> list[str] | None:
    """Tile hashes of the training area, on which the model was trained and tuned; None if the folder has none."""
    path = Path(folder) / SEEN_FILE
    return list(json.loads(path.read_text())) if path.is_file() else None
