"""Reads and writes model folders: coarse/, refiner/ (safetensors) and model.json. Jobs, service and registry use them.

refiner/ also has config.json, the architecture of the refiner in diffusers' format.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from idgbr.config.models import RefinerConfig
from idgbr.errors import UserError
from idgbr.models.coarse import build_coarse
from idgbr.models.description import SAMPLE_FILE, SEEN_FILE, SPEC_FILE, ModelSpec, Sample, load_spec

if TYPE_CHECKING:
    from idgbr.models.refiner import Refiner

_WEIGHTS = "model.safetensors"
_ARCHITECTURE = "config.json"


@dataclass
class LoadedModel:
    """A model folder in memory; a part that was not requested is None."""

    spec: ModelSpec
    coarse: nn.Module | None
    refiner: Refiner | None


def save_model(
    folder: str | Path,
    spec: ModelSpec,
    coarse: nn.Module | None,
    refiner: Refiner | None,
    sample: Sample | None = None,
    seen: Sequence[str] | None = None,
) -> Path:
    """Write a model folder; it appears only when it is complete, and replaces an existing one.

    Args:
        folder: path of the model folder.
        spec: the description.
        coarse: stage 1.
        refiner: stage 2.
        sample: input and output for a smoke test.
        seen: tile hashes of the training area, see `datasets.ground`.

    Returns:
        The folder.
    """
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        for name, part in (("coarse", coarse), ("refiner", refiner)):
            if part is not None:
                (made / name).mkdir()
                state = {k: v.detach().cpu().contiguous() for k, v in part.state_dict().items()}
                save_file(state, made / name / _WEIGHTS)
        if refiner is not None:
            refiner.save_config(made / "refiner")
        if sample is not None:
            np.savez_compressed(made / SAMPLE_FILE, image=sample.image, expected=sample.expected)
        if seen is not None:
            (made / SEEN_FILE).write_text(json.dumps(sorted(set(seen))))
        (made / SPEC_FILE).write_text(spec.model_dump_json(indent=1))
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    return target


def load_model(folder: str | Path, parts: Sequence[str] = ("coarse", "refiner")) -> LoadedModel:
    """Load a model folder, on the CPU, in evaluation mode.

    Raises:
        UserError: it is not a model folder, or its weights are damaged or belong to another model.
    """
    spec = load_spec(folder)
    bands = len(spec.normalisation.mean)
    coarse: nn.Module | None = None
    refiner: Refiner | None = None
    if "coarse" in parts and spec.coarse is not None:
        coarse = build_coarse(spec.coarse, len(spec.classes), bands, pretrained=False)
        _fill(coarse, load_part(folder, "coarse"), folder, "coarse")
    if "refiner" in parts and spec.refiner is not None:
        refiner = build_refiner(len(spec.classes), bands, spec.refiner, False, folder)
        _fill(refiner, load_part(folder, "refiner"), folder, "refiner")
    for module in (coarse, refiner):
        if module is not None:
            module.eval()
    return LoadedModel(spec, coarse, refiner)


def build_refiner(
    classes: int, bands: int, settings: RefinerConfig, pretrained: bool = True, start: str | Path | None = None
) -> Refiner:
    """Build a refiner without loading trained weights.

    Args:
        classes: Number of classes.
        bands: Number of image bands.
        settings: Settings of the refiner.
        pretrained: Load the frozen image encoder's weights.
        start: Model folder whose architecture of denoiser and autoencoder is used; default: that of the settings.
    """
    from idgbr.models.refiner import Refiner  # takes seconds, and stage 1 does not need it

    parts: dict[str, Any] = {}
    architecture = Path(start) / "refiner" / _ARCHITECTURE if start else None
    if architecture is not None and architecture.is_file():
        written = json.loads(architecture.read_text())
        parts = {key: written.get(key) for key in ("unet", "vae", "prompt_shape")}
    return Refiner(classes, bands, settings.model_dump(), pretrained, **parts)


def has_part(folder: str | Path, part: str) -> bool:
    """Whether a model folder, or a file of weights, has weights from which a stage can start."""
    path = Path(folder)
    return not path.is_dir() or (path / part / _WEIGHTS).is_file()


def load_part(source: str | Path, part: str) -> dict[str, Tensor]:
    """Weights of one part: from a model folder, or from a torch file of a state dict.

    Raises:
        UserError: there are no weights of this part, or they are damaged.
    """
    path = Path(source)
    file = path / part / _WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{source}: no weights of the {part} stage there. Expected a model folder or a file of weights")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{file}: damaged weights ({error}). Fetch or train the model again") from error


def _fill(module: nn.Module, state: dict[str, Any], folder: str | Path, part: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"{folder}/{part}: the weights do not fit model.json ({str(error).splitlines()[-1]})"
        ) from error
