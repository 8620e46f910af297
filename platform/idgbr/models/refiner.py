"""Stage 2: the IDGBR refiner. A denoiser of label latents, guided by an image and a coarse map.

Method: arXiv 2507.01573. The inputs are an image and a coarse map (class ids or probabilities). The refiner needs
nothing else from the model that made the coarse map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from idgbr.config.models import RefinerConfig
from idgbr.models.condition_encoder import FrozenImageEncoder, PyramidConditionEncoder, UNetConditionEncoder
from idgbr.models.guard import one_hot
from idgbr.models.guidance import GuidanceNet, PreparedCondition
from idgbr.models.label_embedding import LabelEmbedding, LearnedEmbedding, OneHotEmbedding
from idgbr.models.latent_codec import KlVaeCodec, LosslessCodec
from idgbr.models.stable_diffusion import SD15_PROMPT, SD15_UNET, SD15_VAE
from idgbr.models.unet_halves import down, up

MIN_PROBABILITY = 0.01
"""Smallest probability of a class in the coarse map. At probability 0 the logit would be minus infinity, so that the
refiner could never choose the class; a coarse map of class ids, whose probabilities are 0 or 1, could never change."""


@dataclass(frozen=True)
class Guide:
    """Features of image and coarse map that all denoising steps use.

    Attributes:
        conditions: Inputs of the guidance net: one per skip connection, then one for the mid block.
        start: (N, K patch^2, h, w) logits of the coarse map, to which the denoiser's output is added, or None.
    """

    conditions: list[PreparedCondition]
    start: Tensor | None


class Refiner(ModelMixin, ConfigMixin):
    """Denoiser, condition encoder, guidance net, label embedding and latent codec.

    Args:
        classes: Number of classes K.
        bands: Image bands B.
        settings: `RefinerConfig` as a plain dict.
        pretrained: Load the frozen image encoder's weights; False if all weights of the refiner are loaded afterwards.
        unet: Configuration of the denoiser, as of diffusers' UNet2DConditionModel; default: the small UNet of
            `settings`, or with the kl-vae codec the UNet of Stable Diffusion 1.5.
        vae: Configuration of the autoencoder, for the kl-vae codec; default: that of Stable Diffusion 1.5.
        prompt_shape: Number of tokens and width of the constant prompt embedding, for a UNet with cross-attention.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        classes: int,
        bands: int,
        settings: dict[str, Any],
        pretrained: bool = True,
        unet: dict[str, Any] | None = None,
        vae: dict[str, Any] | None = None,
        prompt_shape: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.settings = RefinerConfig.model_validate(dict(settings))
        s = self.settings
        self.embedding: LabelEmbedding = (
            OneHotEmbedding(classes) if s.embedding == "onehot" else LearnedEmbedding(classes)
        )
        if s.codec == "kl-vae":
            self.codec: KlVaeCodec | LosslessCodec = KlVaeCodec(AutoencoderKL.from_config(vae or SD15_VAE))
            unet, prompt_shape = (unet or SD15_UNET), (prompt_shape or (None if unet else SD15_PROMPT))
        else:
            self.codec = LosslessCodec(s.patch)
        self.embedding.requires_grad_(False)  # a learned embedding is trained separately, before stage 2
        self.latent_channels = self.codec.channels(self.embedding.channels)
        self.denoiser = UNet2DConditionModel.from_config(unet or self._small_unet(classes))
        skips, channels = skip_levels(self.denoiser)
        grids = [max(1, s.window // self.codec.stride // 2**level) for level in skips]
        if s.condition_encoder == "unet":
            self.encoder: nn.Module = UNetConditionEncoder(UNet2DConditionModel.from_config(self.denoiser.config))
        else:
            frozen = None
            if s.image_encoder:
                frozen = FrozenImageEncoder(
                    s.image_encoder, s.image_encoder_weights, s.image_encoder_levels, bands, pretrained
                )
            widths = list(self.denoiser.config["block_out_channels"])
            self.encoder = PyramidConditionEncoder(
                bands, self.latent_channels, self.codec.stride, widths, skips, channels, frozen, s.condition_depth
            )
        self.guidance = GuidanceNet(
            channels, grids, s.guidance_width, s.guidance_heads, s.guidance_layers, s.condition_encoder == "unet"
        )
        self.trust: nn.Parameter | None = None
        if s.correction:
            self.trust = nn.Parameter(torch.ones(1))
            nn.init.zeros_(self.denoiser.conv_out.weight)
            nn.init.zeros_(self.denoiser.conv_out.bias)
        self.register_buffer("prompt", torch.zeros(1, *prompt_shape) if prompt_shape else None)

    prompt: Tensor | None

    @property
    def classes(self) -> int:
        return self.embedding.classes

    def encode_labels(self, labels: Tensor) -> Tensor:
        """Class ids (N, H, W) or probabilities (N, K, H, W) to latents (N, L, h, w)."""
        ids = labels.ndim == 3
        planes = self.embedding.encode(labels) if ids else self.embedding.encode_probabilities(labels)
        return self.codec.encode(planes)

    def prepare(self, image: Tensor, coarse: Tensor) -> Guide:
        """Compute the features that all denoising steps use, once per window.

        Args:
            image: (N, B, H, W), normalised.
            coarse: (N, H, W) class ids or (N, K, H, W) probabilities.
        """
        latents = self.codec.image_latents(image)
        prompt = self._prompt(image.shape[0])
        start = None
        if self.trust is not None:
            planes = coarse.float() if coarse.ndim == 4 else one_hot(coarse, self.classes)
            start = self.trust * nn.functional.pixel_unshuffle(
                planes.clamp(min=MIN_PROBABILITY).log(), self.codec.stride
            )
        labels = self.encode_labels(coarse)
        if not self.settings.coarse_guidance:
            labels = torch.zeros_like(labels)
        return Guide(self.guidance.prepare(*self.encoder(image, latents, labels, prompt)), start)

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        guide: Guide,
        previous: Tensor | None = None,
        guidance: float = 1.0,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Prediction of the denoiser under guidance.

        Args:
            noisy: (N, L, h, w) noisy label latents.
            timestep: (N,) or scalar.
            guide: Result of `prepare`.
            previous: (N, L, h, w) earlier estimate of the clean latents, for self-conditioning; None stands for zeros.
            guidance: Classifier-free guidance scale. At 1 the unguided pass is skipped, at 0 the guided one.
            keep: (N,) 0 or 1, in training: the guidance of samples with 0 is dropped.

        Returns:
            (N, L, h, w), or for `label` prediction (N, K patch^2, h, w) logits.
        """
        if self.settings.self_conditioning:
            noisy = torch.cat([noisy, torch.zeros_like(noisy) if previous is None else previous], 1)
        prompt = self._prompt(noisy.shape[0])
        features = down(self.denoiser, noisy, timestep, prompt)
        if guidance == 0.0:
            return up(self.denoiser, features, None, prompt)
        residuals, start = self.guidance(features.all(), guide.conditions), guide.start
        if keep is not None:
            residuals = [residual * keep.view(-1, 1, 1, 1).to(residual.dtype) for residual in residuals]
            start = None if start is None else start * keep.view(-1, 1, 1, 1)
        guided = up(self.denoiser, features, residuals, prompt)
        if start is not None:
            guided = guided.float() + start
        if guidance == 1.0:
            return guided
        plain = up(self.denoiser, features, None, prompt)
        return plain + guidance * (guided - plain)

    def at_once(self, like: Tensor, guide: Guide) -> Tensor:
        """Output of the one-shot control, shaped like that of `forward`; its input contains neither noise nor label.

        Args:
            like: Any latents (N, L, h, w); only their shape and device are used.
            guide: Result of `prepare`.
        """
        last = torch.tensor(self.settings.train_timesteps - 1, device=like.device)
        return self(torch.zeros_like(like), last, guide)

    def label_logits(self, output: Tensor) -> Tensor:
        """For `label` prediction: rearrange logits on the latent grid to pixels, (N, K, H, W)."""
        return nn.functional.pixel_shuffle(output, self.codec.stride)

    def _prompt(self, batch: int) -> Tensor | None:
        return None if self.prompt is None else self.prompt.expand(batch, -1, -1)

    def _small_unet(self, classes: int) -> dict[str, Any]:
        s = self.settings
        outputs = classes * s.patch**2 if s.prediction == "label" else self.latent_channels
        levels = len(s.channels)
        return {
            "sample_size": s.window // s.patch,
            "in_channels": self.latent_channels * (2 if s.self_conditioning else 1),
            "out_channels": outputs,
            "block_out_channels": list(s.channels),
            "layers_per_block": s.layers_per_block,
            "down_block_types": ["DownBlock2D"] * levels,
            "up_block_types": ["UpBlock2D"] * levels,
            "mid_block_type": "UNetMidBlock2D",
            "attention_head_dim": s.attention_head_dim,
            "norm_num_groups": 16,
        }


def skip_levels(unet: UNet2DConditionModel) -> tuple[list[int], list[int]]:
    """Level (number of halvings of the grid) and channels of every skip connection, then of the mid block."""
    widths = list(unet.config["block_out_channels"])
    layers = unet.config["layers_per_block"]
    levels, channels = [0], [widths[0]]
    for level, width in enumerate(widths):
        levels += [level] * layers
        channels += [width] * layers
        if level + 1 < len(widths):
            levels.append(level + 1)
            channels.append(width)
    return [*levels, len(widths) - 1], [*channels, widths[-1]]
