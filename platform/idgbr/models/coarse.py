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
        pretrained: False skips the encoder's weights, for a network that is about to be loaded.

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
    # Depthwise convolutions, of which light encoders consist, take half the time so.
    return model.to(memory_format=torch.channels_last)


def padded_logits(model: nn.Module, image: Tensor) -> Tensor:
    """Logits of an image of any size: padded to the stride of 32 with its mirror image, then cropped back.

    A mirror image looks like ground. Next to zeros, or to the edge repeated, a network is wrong more often; what is too
    small to be mirrored is repeated.
    """
    height, width = image.shape[-2:]
    down, right = -height % 32, -width % 32
    if down or right:
        mode = "reflect" if down < height and right < width else "replicate"
        image = nn.functional.pad(image, (0, right, 0, down), mode=mode)
    return model(image)[..., :height, :width]
