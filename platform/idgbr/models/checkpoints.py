"""Reads parts of external checkpoints in diffusers' layout; error messages name what is missing or wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, ModelMixin, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn

from idgbr.errors import UserError

Model = TypeVar("Model", bound=ModelMixin)

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
_PICKLED = ("diffusion_pytorch_model.bin",)


def read_unet(folder: Path) -> UNet2DConditionModel:
    """Read the denoiser of a folder.

    Raises:
        UserError: It is missing or incomplete, or needs more inputs than noisy latents (an inpainting model).
    """
    unet = _read(UNet2DConditionModel, folder)
    if unet.config["in_channels"] != unet.config["out_channels"]:
        raise UserError(
            f"{folder}: takes {unet.config['in_channels']} channels and gives {unet.config['out_channels']}; expected "
            "a plain text-to-image UNet, not one for inpainting or depth"
        )
    return unet


def read_vae(folder: Path) -> AutoencoderKL:
    """Read the autoencoder of a folder.

    Raises:
        UserError: It is missing or incomplete, or does not have three input planes.
    """
    vae = _read(AutoencoderKL, folder)
    if vae.config["in_channels"] != 3 or vae.config["out_channels"] != 3:
        raise UserError(f"{folder}: takes {vae.config['in_channels']} planes; expected an autoencoder of three")
    return vae


def read_state(folder: Path) -> dict[str, Tensor]:
    """The tensors of a part, by name.

    Args:
        folder: The part's folder, or a file of weights.

    Raises:
        UserError: There are none, or they cannot be read.
    """
    names = [*_WEIGHTS, *_PICKLED]
    files = [folder] if folder.is_file() else [folder / name for name in names if (folder / name).is_file()]
    if not files:
        raise UserError(f"{folder}: no weights there; expected {names[0]} (or {', '.join(names[1:])})")
    try:
        if files[0].suffix == ".safetensors":
            return load_file(files[0])
        state: dict[str, Tensor] = torch.load(files[0], map_location="cpu", weights_only=True)
        return state
    except Exception as error:
        raise UserError(f"{files[0]}: damaged weights ({error}). Fetch them again") from error


def read_config(folder: Path) -> dict[str, Any]:
    """The JSON configuration of a part.

    Raises:
        UserError: There is none.
    """
    files = sorted(folder.glob("*config.json"))
    if not files:
        raise UserError(f"{folder}: no config.json there; expected a part in diffusers' layout")
    config: dict[str, Any] = json.loads(files[0].read_text())
    return config


def fill(module: nn.Module, state: dict[str, Tensor], part: Path) -> None:
    """Load all tensors of a module from a state; other tensors of the state are ignored.

    Raises:
        UserError: A tensor is missing or has another shape; the message names the tensor and the part.
    """
    own = module.state_dict()
    for name, value in own.items():
        if name not in state:
            raise UserError(f"{part}: tensor {name} is missing. Are the part's config and weights of one model?")
        if state[name].shape != value.shape:
            raise UserError(
                f"{part}: {name} has shape {tuple(state[name].shape)}, expected {tuple(value.shape)}. Do the parts of "
                "this folder belong together?"
            )
    module.load_state_dict({name: state[name].to(value.dtype) for name, value in own.items()})


def plain(config: Any) -> dict[str, Any]:
    """A part's configuration without diffusers' internal entries."""
    return {key: value for key, value in dict(config).items() if not key.startswith("_")}


def _read(kind: type[Model], folder: Path) -> Model:
    """Load a part with diffusers, including older tensor names and half precision; no tensor may be missing."""
    read_config(folder)
    variant = "fp16" if (folder / _WEIGHTS[1]).is_file() and not (folder / _WEIGHTS[0]).is_file() else None
    try:
        model, found = kind.from_pretrained(
            folder, variant=variant, output_loading_info=True, torch_dtype=torch.float32
        )
    except Exception as error:
        raise UserError(f"{folder}: cannot be loaded as {kind.__name__}: {str(error).splitlines()[0]}") from error
    if found["missing_keys"]:
        raise UserError(
            f"{folder}: {len(found['missing_keys'])} tensors are missing, the first {min(found['missing_keys'])}. "
            "Are the part's config and weights of one model?"
        )
    return model
