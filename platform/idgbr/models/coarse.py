"""Stage 1: a discriminative backbone that gives the coarse map."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from idgbr.config.models import CoarseConfig
from idgbr.errors import UserError
from idgbr.models.pretrained import HUB, NONE, fetching, load_encoder_weights


def build_coarse(config: CoarseConfig, classes: int, bands: int, pretrained: bool = True) -> nn.Module:
    """Build a segmentation network: (N, bands, H, W) normalised image -> (N, classes, H, W) logits.

    Args:
        config: Decoder, encoder and weights by name.
        classes: Number of classes.
        bands: Number of input bands.
        pretrained: False skips the encoder's weights, for a network whose weights are loaded afterwards.

    Raises:
        UserError: The decoder, the encoder or its weights do not exist, cannot be fetched or do not fit.
    """
    weights = config.weights if pretrained else NONE
    try:
        with fetching("coarse.weights"):
            model = smp.create_model(
                config.decoder,
                encoder_name=config.encoder,
                encoder_weights="imagenet" if weights == HUB else None,
                in_channels=bands,
                classes=classes,
                **config.options,
            )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        options = f" and coarse.options {config.options}" if config.options else ""
        raise UserError(
            f"coarse.decoder {config.decoder!r} with coarse.encoder {config.encoder!r}{options}: {error}"
        ) from error
    if weights not in (HUB, NONE):
        load_encoder_weights(getattr(model.encoder, "model", model.encoder), weights, bands)
    # Depthwise convolutions, which light encoders consist of, take half the time this way.
    return model.to(memory_format=torch.channels_last)


def padded_logits(model: nn.Module, image: Tensor, least: int = 1) -> Tensor:
    """Logits of an image of any size: reflection-padded to a multiple of the stride 32, then cropped.

    Reflected pixels look like real imagery; with zero or replication padding the network makes more errors.

    Args:
        model: network from `build_coarse`.
        image: (N, B, H, W), normalised.
        least: smallest side in pixels of the network's input.

    Returns:
        (N, K, H, W).
    """
    height, width = image.shape[-2:]
    rows, cols = _mirrored(height, least), _mirrored(width, least)
    if len(rows) > height or len(cols) > width:
        image = image[..., rows, :][..., cols]
    return model(image)[..., :height, :width]


def _mirrored(length: int, least: int) -> Tensor:
    """Indices of reflection padding along an axis, to a multiple of 32 that is at least `least`."""
    turn = max(2 * (length - 1), 1)
    position = torch.arange(-(-max(length, least) // 32) * 32) % turn
    return torch.minimum(position, turn - position)
