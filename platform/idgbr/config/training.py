"""Section `training`: steps, rates and precision of both stages."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from idgbr.config.data import AugmentationConfig
from idgbr.config.node import Node, Precision


class StageTraining(Node):
    seed: int = 0
    """Seed of the stage's sampling, random initial weights and noise."""
    augmentation: AugmentationConfig | None = None
    """Augmentation of this stage's windows; replaces data.augmentation."""
    steps: int = Field(600, ge=1)
    batch: int = Field(8, ge=1)
    """Global batch: windows per optimiser step over all workers."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches per step and worker."""
    lr: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: int = Field(50, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float = Field(1.0, gt=0)
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the exponential moving average that is evaluated and kept; 0: none."""
    precision: Precision = "auto"
    """auto: bf16 on GPUs that compute in it and on CPUs with AMX, else fp32."""
    optimiser: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit: AdamW with 8-bit moments; needs a GPU and the package bitsandbytes."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """ddp: every worker has the complete model; fsdp: weights, gradients, moments and average are sharded, for models
    that do not fit on one GPU. A checkpoint of either can be resumed with the other."""
    channels_last: bool = False
    """Convolutions in channels-last memory, faster on GPUs in half precision."""
    compile: bool = False
    """Compile the model with torch.compile: training starts later and then runs faster."""
    validate_every: int = Field(200, ge=1)
    """Steps between measurements on the select split (and checkpoints)."""
    patience: int = Field(0, ge=0)
    """Number of measurements without improvement after which training stops early; 0: never."""
    validate_windows: int = Field(32, ge=1)
    """Largest number of windows of the select split per measurement."""

    @model_validator(mode="after")
    def _can_be_split(self) -> Self:
        if self.parallel == "fsdp" and (self.channels_last or self.optimiser == "adamw8bit"):
            raise ValueError(
                "parallel: found fsdp with channels_last or adamw8bit; expected neither, since weights that lie so "
                "cannot be split, and such moments neither. Leave them out, or use parallel: ddp"
            )
        return self


class AlignmentConfig(Node):
    """Representation alignment: the guidance net's deepest residual learns to resemble a frozen ViT's tokens."""

    teacher: str = ""
    """A timm ViT by name, or `backbone`: the encoder of the stage 1 just trained. Empty: no alignment."""
    weights: str = "hub"
    """Of a timm ViT: hub | none | path of a state dict."""
    weight: float = Field(0.5, ge=0)
    """Weight of the alignment loss relative to the denoiser's loss."""
    steps: int = Field(200, ge=1)
    """Number of first steps in which the alignment loss is used."""


class RefinerTraining(StageTraining):
    # A class of its own, so that a file that sets one key of the section keeps these defaults for the others.
    ema: float = Field(0.99, ge=0, lt=1)
    """Decay of the exponential moving average that is evaluated and kept; 0: none."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them."""
    alignment: AlignmentConfig = AlignmentConfig()


class TrainingConfig(Node):
    coarse: StageTraining = StageTraining()
    refiner: RefinerTraining = RefinerTraining()
