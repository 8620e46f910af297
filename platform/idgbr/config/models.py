"""Sections `coarse`, `refiner` and `sampler`: the networks of both stages, and how the second one answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from idgbr.config.node import Node, Unit


class CoarseConfig(Node):
    decoder: str = "FPN"
    """Any decoder of segmentation_models_pytorch by name: Unet, FPN, Segformer, DeepLabV3Plus, UPerNet, ..."""
    encoder: str = "tu-tf_efficientnet_lite0"
    """Any encoder of segmentation_models_pytorch by name; tu-NAME is timm's model NAME."""
    weights: str = "package:efficientnet-lite0"
    """hub | package:efficientnet-lite0 | none | path of a state dict of the encoder."""
    options: dict[str, Any] = {}
    """Additional keyword arguments of the decoder in segmentation_models_pytorch, for example decoder_channels."""
    window: int = Field(192, ge=32)
    """Training window in pixels."""
    dice_weight: float = Field(1.0, ge=0)
    """Weight of the Dice loss, added to cross-entropy."""
    folds: int = Field(2, ge=0)
    """Number of folds of the training split, each with its own backbone, which is not trained on that fold and makes
    its coarse maps for stage 2. 0: the final backbone makes them."""
    fold_block: int = Field(512, ge=32)
    """Side in pixels of the blocks that are assigned to folds. A value larger than the scenes assigns whole scenes. The
    errors of their coarse maps then resemble those at a new place, since a block has neighbours on which its backbone
    was trained."""
    fold_steps: int = Field(0, ge=0)
    """Training steps of a fold's backbone; 0: the number at which it sees every pixel as often as the final backbone
    does, which is fewer steps."""


class MeanFieldConfig(Node):
    """Mean field: nearby pixels of similar colour get the same class."""

    rounds: int = Field(0, ge=0)
    """Number of iterations; 0: no mean field."""
    reach: float = Field(15.0, gt=0)
    """Standard deviation of the spatial kernel in pixels: neighbours farther away have less influence."""
    colour: float = Field(0.1, gt=0)
    """Standard deviation of the colour kernel, in standard deviations of a band."""
    weight: float = Field(5.0, ge=0)
    """Weight of neighbours of similar colour relative to the pixel's own log-probability."""
    smooth_weight: float = Field(3.0, ge=0)
    """Weight of the nearest neighbours, regardless of their colour."""


class RefinerConfig(Node):
    coarse_input: Literal["ids", "probabilities"] = "ids"
    """How the coarse map enters the refiner."""
    coarse_guidance: bool = True
    """Whether the coarse map guides the denoiser; false: zeros in place of its latents, the ablation of the authors'
    release (use_rough_guidance). Sampling must not begin from the coarse map either (sampler.start noise)."""
    correction: bool = False
    """label prediction: the denoiser predicts a correction of the coarse map's log-probabilities, so that its output
    equals the coarse map when training starts."""
    coarse_odds: list[PositiveFloat] = []
    """coarse_input probabilities: a factor per class, by which the odds of the class are multiplied in the coarse maps
    that stage 2 learns from; empty: none. With a factor below 1 the maps miss more of the class, like coarse maps of
    new places, and stage 2 learns to add it."""
    codec: Literal["lossless", "kl-vae"] = "lossless"
    """lossless: space-to-depth of the label embedding; kl-vae: the Stable Diffusion autoencoder."""
    patch: int = Field(4, ge=1)
    """lossless: side of a latent cell in pixels."""
    embedding: Literal["onehot", "learned"] = "onehot"
    """Label embedding: +-1 one-hot planes (small scale) or the released 3-channel table."""
    window: int = Field(128, ge=32)
    """Training window in pixels."""
    channels: list[int] = [64, 96, 128]
    """Denoiser channels per level."""
    layers_per_block: int = Field(1, ge=1)
    attention_head_dim: int = Field(32, ge=4)
    guidance_width: int = Field(64, ge=8)
    """Width W of a guidance block's attention."""
    guidance_heads: int = Field(4, ge=1)
    guidance_layers: int = Field(1, ge=1)
    condition_encoder: Literal["pyramid", "unet"] = "pyramid"
    """pyramid: a small trained encoder and frozen timm features; unet: down and mid blocks of the frozen Stable
    Diffusion UNet."""
    condition_depth: int = Field(2, ge=1)
    """pyramid: residual blocks per level of the trained encoder."""
    image_encoder: str = "tf_efficientnet_lite0"
    """Frozen timm encoder whose features guide the refiner; empty for none."""
    image_encoder_weights: str = "package:efficientnet-lite0"
    """hub | package:efficientnet-lite0 | none | path."""
    image_encoder_levels: list[int] = [0, 1, 2]
    """Which feature levels of the encoder are used (0 is stride 2)."""
    prediction: Literal["epsilon", "v", "sample", "label"] = "label"
    """What the denoiser predicts; label: logits of the clean label, trained with cross-entropy."""
    self_conditioning: bool = True
    """The denoiser also gets its previous estimate: for half of the samples in training, in every step at inference."""
    schedule: Literal["scaled_linear", "cosine"] = "cosine"
    train_timesteps: int = Field(1000, ge=2)
    timestep_sampling: Literal["uniform", "cubic"] = "cubic"
    """cubic: t = (1 - u^3) T favours noisy steps."""
    boundary_weight: float = Field(0.0, ge=0)
    """label prediction: extra weight of pixels near a label boundary in the loss."""
    boundary_reach: int = Field(3, ge=1)
    """Distance in pixels from a label boundary up to which boundary_weight applies."""
    dice_weight: float = Field(0.0, ge=0)
    """label prediction: weight of the Dice loss per window, added to cross-entropy; it gives rare classes the same
    weight as others."""
    condition_dropout: Unit = 0.0
    """Share of training samples without guidance; needed for guidance scales other than 1."""
    objective: Literal["diffusion", "one_shot"] = "diffusion"
    """one_shot: the one-shot control. The same network predicts the map in one step, from image and coarse map only,
    without noise; trained with cross-entropy (prediction label)."""

    @model_validator(mode="after")
    def _one_shot_classifies(self) -> RefinerConfig:
        if self.objective == "one_shot" and (self.prediction != "label" or self.self_conditioning):
            raise ValueError("one_shot needs prediction label and self_conditioning false")
        return self

    @model_validator(mode="after")
    def _odds_of_probabilities(self) -> RefinerConfig:
        if self.coarse_odds and self.coarse_input != "probabilities":
            raise ValueError("coarse_odds needs coarse_input probabilities")
        return self

    @model_validator(mode="after")
    def _correction_classifies(self) -> RefinerConfig:
        if self.correction and self.prediction != "label":
            raise ValueError("correction needs prediction label")
        if self.correction and not self.coarse_guidance:
            raise ValueError("correction begins from the coarse map and needs coarse_guidance true")
        return self

    @model_validator(mode="after")
    def _autoencoder_takes_pictures(self) -> RefinerConfig:
        if self.codec == "kl-vae" and (self.embedding != "learned" or self.prediction == "label"):
            raise ValueError("codec kl-vae needs embedding learned (three planes) and prediction epsilon, v or sample")
        return self


class SamplerConfig(Node):
    steps: int = Field(4, ge=1, le=1000)
    samples: int = Field(4, ge=1)
    """Number of independent samples, whose probabilities are averaged."""
    solver: Literal["ddim", "dpmsolver++"] = "ddim"
    """dpmsolver++: second-order multistep solver."""
    guidance: float = 1.0
    """Classifier-free guidance scale; at 1 the unconditional pass is skipped, at 0 the guidance net."""
    guidance_interval: list[Unit] = Field([0.0, 1.0], min_length=2, max_length=2)
    """First and last share of the steps in which the guidance scale applies; other steps use scale 1."""
    spacing: Literal["leading", "trailing"] = "trailing"
    start: Literal["noise", "coarse"] = "noise"
    """Input of the first step: pure noise, or the coarse map with noise of `strength`."""
    strength: float = Field(0.7, gt=0, le=1)
    """start coarse: share of the noise schedule at which denoising starts; 1 is pure noise."""
    dihedral: bool = True
    """Each sample uses another of the eight dihedral transforms (flips and rotations by 90 degrees) of the window."""
    mean_field: MeanFieldConfig = MeanFieldConfig()
    smoothing: float = Field(0.0, ge=0, le=5)
    """Standard deviation, in pixels, of a Gaussian that averages probabilities after the mean field; 0: none. Less than
    a pixel straightens frayed edges."""
    coarse_vote: float = Field(0.0, ge=0)
    """Coarse vote: weight of the coarse map relative to all samples together, applied before the mean field. If the
    coarse map has class ids, its class is kept unless the probability of another class is higher by more than this."""
    keep_disagreement: Unit = 1.0
    """Guard: the coarse map is kept where the disagreement of the samples is above this value; 1: nowhere."""
    keep_beyond: int = Field(0, ge=0)
    """Guard: the coarse map is kept at pixels farther than this from every boundary of the coarse map, in pixels; 0:
    nowhere. The overlap of windows should be at least twice this value."""
    min_region: NonNegativeFloat | dict[str, NonNegativeFloat] | None = 0.0
    """Minimum mapping unit: a region (4-connected pixels of one class) smaller than this, in square metres, gets the
    most probable class among its neighbours. One value, or values by class name (other classes have none); 0 or null:
    none. In pixels instead of square metres if the model's imagery has no ground sample distance."""
    seed: int = 0

    @model_validator(mode="after")
    def _interval_ordered(self) -> SamplerConfig:
        if self.guidance_interval[1] < self.guidance_interval[0]:
            raise ValueError("guidance_interval: its end lies before its beginning")
        return self
