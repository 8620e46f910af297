"""The two halves of a diffusers UNet, so that the down path is computed once and shared.

The guidance net computes its queries from the features of the down path, and the guided and unguided predictions differ
only in the residuals added to the skip connections. With the same prompt, all three share one pass through the down
path.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffusers import UNet2DConditionModel
from torch import Tensor


@dataclass
class Features:
    """Output of the down and mid path of a UNet.

    Attributes:
        skips: One (N, C_i, H_i, W_i) per skip connection, in the order they are made.
        mid: (N, C, H, W) after the mid block.
        time: (N, E) time embedding.
    """

    skips: list[Tensor]
    mid: Tensor
    time: Tensor

    def all(self) -> list[Tensor]:
        """Skips, then mid."""
        return [*self.skips, self.mid]


def down(unet: UNet2DConditionModel, sample: Tensor, timestep: Tensor, prompt: Tensor | None = None) -> Features:
    """The first half of the UNet's forward pass.

    Args:
        unet: A UNet, or one whose up path was removed.
        sample: (N, L, h, w).
        timestep: (N,).
        prompt: (N, tokens, width), for a UNet with cross-attention.
    """
    time = unet.time_embedding(unet.time_proj(timestep.expand(sample.shape[0])).to(sample.dtype))
    sample = unet.conv_in(sample)
    skips = [sample]
    for block in unet.down_blocks:
        if getattr(block, "has_cross_attention", False):
            sample, made = block(hidden_states=sample, temb=time, encoder_hidden_states=prompt)
        else:
            sample, made = block(hidden_states=sample, temb=time)
        skips.extend(made)
    if getattr(unet.mid_block, "has_cross_attention", False):
        sample = unet.mid_block(sample, time, encoder_hidden_states=prompt)
    else:
        sample = unet.mid_block(sample, time)
    return Features(skips, sample, time)


def up(
    unet: UNet2DConditionModel, features: Features, residuals: list[Tensor] | None = None, prompt: Tensor | None = None
) -> Tensor:
    """The second half: (N, out_channels, h, w); residuals are added to the skips and to mid, as ControlNet's are.

    Args:
        unet: The UNet.
        features: Result of `down`.
        residuals: One per skip, then one for mid; None for the unguided prediction.
        prompt: As for `down`.
    """
    skips, sample = features.skips, features.mid
    if residuals is not None:
        skips = [skip + residual for skip, residual in zip(skips, residuals[:-1], strict=True)]
        sample = sample + residuals[-1]
    skips = list(skips)
    for index, block in enumerate(unet.up_blocks):
        count = len(block.resnets)
        mine, skips = tuple(skips[-count:]), skips[:-count]
        size = skips[-1].shape[-2:] if index + 1 < len(unet.up_blocks) else None
        inputs = {"hidden_states": sample, "temb": features.time, "res_hidden_states_tuple": mine}
        if getattr(block, "has_cross_attention", False):
            inputs["encoder_hidden_states"] = prompt
        sample = block(**inputs, upsample_size=size)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(sample)))
