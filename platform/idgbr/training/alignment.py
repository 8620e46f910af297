"""Representation alignment: in the first steps, a loss aligns the guidance net's deepest residual to a frozen teacher.

Method: arXiv 2507.01573. A head of three linear layers maps the residual to the teacher's width; the loss is minus the
mean cosine between its tokens, resized to the teacher's grid, and the teacher's patch tokens of the image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from idgbr.config.training import AlignmentConfig
from idgbr.datasets.normalisation import IMAGENET, Normalisation
from idgbr.errors import UserError
from idgbr.models.package import load_model
from idgbr.models.pretrained import HUB, NONE, fetching, load_encoder_weights
from idgbr.models.refiner import Refiner

BACKBONE = "backbone"
"""Name that selects the encoder of stage 1 as the teacher."""
_HEAD = "alignment_head"
_HIDDEN = 2048
_SHRINK = 7 / 8
"""Factor by which the image's side is scaled for a ViT, then rounded down to whole patches."""


class Teacher(nn.Module):
    """A frozen encoder: images to patch tokens on a grid.

    Args:
        model: timm ViT, or the encoder of a segmentation model.
        patch: Side in pixels of a ViT's patch; 0 for an encoder, of which the deepest feature is used.
        normalisation: Normalisation of the images.
    """

    def __init__(self, model: nn.Module, patch: int, width: int, normalisation: Normalisation) -> None:
        super().__init__()
        self.model, self.patch, self.width, self.came = model.requires_grad_(False).eval(), patch, width, normalisation

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Image (N, B, H, W), normalised, to tokens (N, width, h, w)."""
        if not self.patch:
            features: list[Tensor] = self.model(image)
            return features[-1]
        sides = [int(side * _SHRINK) // self.patch * self.patch for side in image.shape[-2:]]
        resized = functional.interpolate(self._renormalised(image), sides, mode="bicubic", align_corners=False)
        return self.model.forward_intermediates(  # type: ignore[operator]
            resized, indices=1, norm=True, intermediates_only=True, output_fmt="NCHW"
        )[0]

    def _renormalised(self, image: Tensor) -> Tensor:
        """Images of three bands with ImageNet's normalisation, which a pretrained ViT expects; others are unchanged."""
        if len(self.came.mean) != 3 or self.came == IMAGENET:
            return image
        figures = (self.came.mean, self.came.std, IMAGENET.mean, IMAGENET.std)
        mean, std, to_mean, to_std = (image.new_tensor(f).view(1, 3, 1, 1) for f in figures)
        return (image * std + mean - to_mean) / to_std


class Alignment:
    """The alignment loss of one training run; its head is a part of the model until training ends."""

    def __init__(self, refiner: Refiner, teacher: Teacher, settings: AlignmentConfig) -> None:
        self.refiner, self.settings = refiner, settings
        self.teacher = [teacher]  # in a list, so that it is not trained, saved or synchronised between workers
        deepest: Any = refiner.guidance.blocks[-1]
        head = nn.Sequential(
            nn.Linear(deepest.channels, _HIDDEN),
            nn.SiLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.SiLU(),
            nn.Linear(_HIDDEN, teacher.width),
        )
        refiner.add_module(_HEAD, head)
        self.head = head
        self.residual: Tensor | None = None
        deepest.register_forward_hook(self._note)

    def _note(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.residual = output

    def loss(self, image: Tensor, step: int) -> Tensor:
        """Weighted loss of the step's images (N, B, H, W); after the alignment steps, zero with zero gradients."""
        residual, self.residual = self.residual, None
        if step >= self.settings.steps or residual is None:
            # The gradient reduction between workers expects a gradient of every parameter.
            return sum((p.sum() for p in self.head.parameters()), image.new_zeros(())) * 0.0
        teacher = self.teacher[0].to(image.device)
        truth = teacher(image)
        tokens = self.head(residual.movedim(1, -1)).movedim(-1, 1)
        tokens = functional.interpolate(tokens.float(), truth.shape[-2:], mode="bilinear", align_corners=False)
        return -self.settings.weight * functional.cosine_similarity(tokens, truth.float(), dim=1).mean()


def align(
    refiner: Refiner, settings: AlignmentConfig, bands: int, normalisation: Normalisation, backbone: str = ""
) -> Alignment | None:
    """Build the alignment loss that a configuration specifies; None if it specifies none.

    Args:
        refiner: The refiner, to which the head is added.
        settings: Teacher, weight, steps.
        bands: Number of image bands.
        normalisation: Normalisation of the images.
        backbone: Model folder of the stage 1 that was just trained.

    Raises:
        UserError: timm has no such model, it is not a ViT, or its weights cannot be fetched or do not fit.
    """
    if not settings.teacher:
        return None
    if settings.teacher == BACKBONE:
        return Alignment(refiner, _backbone(backbone, normalisation), settings)
    try:
        with fetching("training.refiner.alignment.weights"):
            model = timm.create_model(
                settings.teacher,
                pretrained=settings.weights == HUB,
                num_classes=0,
                in_chans=bands,
                dynamic_img_size=True,
            )
        patch = int(model.patch_embed.patch_size[0])  # type: ignore[union-attr,index]
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(
            f"training.refiner.alignment.teacher {settings.teacher!r}: {error}; expected a ViT of timm, such as "
            f"vit_small_patch14_dinov2, or {BACKBONE}"
        ) from error
    if settings.weights not in (HUB, NONE):
        load_encoder_weights(model, settings.weights, bands)
    width: Any = model.num_features
    return Alignment(refiner, Teacher(model, patch, int(width), normalisation), settings)


def without_head(state: dict[str, Any]) -> dict[str, Any]:
    """A refiner's weights without the head."""
    return {name: value for name, value in state.items() if not name.startswith(f"{_HEAD}.")}


def _backbone(folder: str, normalisation: Normalisation) -> Teacher:
    loaded = load_model(Path(folder), ["coarse"]).coarse if folder else None
    if loaded is None:
        raise UserError(f"training.refiner.alignment.teacher {BACKBONE}: {folder or 'no model'} has no stage 1")
    encoder: Any = loaded.encoder
    return Teacher(encoder, 0, int(encoder.out_channels[-1]), normalisation)
