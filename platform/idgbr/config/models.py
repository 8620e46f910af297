"""Sections `coarse`, `refiner` and `sampler`: the networks of both stages, and how the second one answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from idgbr.config.node import Node, Unit


class CoarseConfig(Node):
    decoder: str = "FPN"
    """Any decoder of segmentation_models_pytorch by name: Unet, FPN, Segformer, DeepLabV3Plus, UPerNet, ..."""
    encoder: str = "tu-tf_efficientnet_lite0"
    """Any encoder name segmentation_models_pytorch takes; tu-NAME is timm's NAME."""
    weights: str = "package:efficientnet-lite0"
    """hub | package:efficientnet-lite0 | none | path of a state dict of the encoder."""
    options: dict[str, Any] = {}
    """Further arguments of the decoder as segmentation_models_pytorch names them, for example decoder_channels."""
    window: int = Field(192, ge=32)
    """Training window in pixels."""
    dice_weight: float = Field(1.0, ge=0)
    """Weight of the Dice loss beside cross-entropy."""
    folds: int = Field(2, ge=0)
    """Stage 2 trains on coarse maps of backbones that never saw the ground: blocks of the training split in this many
    folds, one backbone a fold. 0: maps of the final backbone itself."""
    fold_block: int = Field(512, ge=32)
    """Side of the blocks that are dealt to the folds, in pixels. Larger than the scenes: whole scenes, whose coarse
    maps fail as those of another place do; blocks have neighbours that their backbone saw."""
    fold_steps: int = Field(0, ge=0)
    """Steps of a fold's backbone; 0: as many looks at every pixel as the final one has, which makes fewer steps."""


class MeanFieldConfig(Node):
    """Neighbours of one colour agree on their class."""

    rounds: int = Field(0, ge=0)
    """Rounds of agreement; 0: none."""
    reach: float = Field(15.0, gt=0)
    """Standard deviation of the distance to a neighbour that has a say, in pixels."""
    colour: float = Field(0.1, gt=0)
    """Standard deviation of the colour difference that still counts as alike, in standard deviations of a band."""
    weight: float = Field(5.0, ge=0)
    """Weight of neighbours of like colour against the pixel's own log-probability."""
    smooth_weight: float = Field(3.0, ge=0)
    """Weight of the nearest neighbours, whatever their colour."""


class RefinerConfig(Node):
    coarse_input: Literal["ids", "probabilities"] = "ids"
    """How the coarse map enters the refiner."""
    coarse_guidance: bool = True
    """Whether the coarse map guides the denoiser; false: zeros in place of its latents, the ablation of the authors'
    release (use_rough_guidance). Sampling must not begin from the coarse map either (sampler.start noise)."""
    correction: bool = False
    """label prediction: the denoiser answers with a correction of the coarse map's log-probabilities, so that training
    begins from that map instead of from nothing."""
    coarse_odds: list[PositiveFloat] = []
    """Training on probabilities: factor by class on its odds in the coarse maps that stage 2 learns from; empty:
    none. Below 1 the maps miss more of a class, as those of other ground do, and stage 2 learns to add to them."""
    codec: Literal["lossless", "kl-vae"] = "lossless"
    """lossless: space-to-depth of the label embedding; kl-vae: the Stable Diffusion autoencoder."""
    patch: int = Field(4, ge=1)
    """lossless: pixels per latent cell and side."""
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
    """pyramid: a small trained encoder beside frozen timm features; unet: the frozen SD UNet's down and mid blocks."""
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
    """Half of the training steps see the previous estimate; at inference every step does."""
    schedule: Literal["scaled_linear", "cosine"] = "cosine"
    train_timesteps: int = Field(1000, ge=2)
    timestep_sampling: Literal["uniform", "cubic"] = "cubic"
    """cubic: t = (1 - u^3) T favours noisy steps."""
    boundary_weight: float = Field(0.0, ge=0)
    """label prediction: extra weight of pixels near a label boundary in the loss."""
    boundary_reach: int = Field(3, ge=1)
    """How near, in pixels."""
    dice_weight: float = Field(0.0, ge=0)
    """label prediction: weight of the Dice loss, of each window, beside cross-entropy: rare classes count as much."""
    condition_dropout: Unit = 0.0
    """Share of training samples that see no guidance, for guidance scales other than 1."""
    objective: Literal["diffusion", "one_shot"] = "diffusion"
    """one_shot: the control. The same network answers at once, from nothing but image and coarse map: no noise, one
    step, cross-entropy (prediction label)."""

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
    """Independent samples, whose probabilities are averaged."""
    solver: Literal["ddim", "dpmsolver++"] = "ddim"
    """dpmsolver++: of second order, multistep."""
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 costs no unconditional pass, 0 no guidance net."""
    guidance_interval: list[Unit] = Field([0.0, 1.0], min_length=2, max_length=2)
    """The scale holds from this share of the steps to that one; the others take scale 1."""
    spacing: Literal["leading", "trailing"] = "trailing"
    start: Literal["noise", "coarse"] = "noise"
    """What the first step sees: pure noise, or the coarse map with noise of `strength`."""
    strength: float = Field(0.7, gt=0, le=1)
    """start coarse: which share of the noise schedule the steps go back over."""
    dihedral: bool = True
    """Every sample sees the window under another of the eight dihedral transforms."""
    mean_field: MeanFieldConfig = MeanFieldConfig()
    coarse_vote: float = Field(0.0, ge=0)
    """Never worse: weight of the coarse map's vote beside the samples, cast before the mean field; given as ids, a
    coarse label stays unless another is more probable by this much."""
    keep_disagreement: Unit = 1.0
    """Never worse: the coarse label stays where the samples' disagreement is above this; 1: nowhere."""
    keep_beyond: int = Field(0, ge=0)
    """Never worse: the coarse label stays where it is farther than so many pixels from any coarse boundary; 0: nowhere.
    Windows should overlap by twice as much."""
    min_region: NonNegativeFloat | dict[str, NonNegativeFloat] | None = 0.0
    """Minimum mapping unit: a region (4-connected pixels of one class) below so many square metres goes to the
    neighbouring class that is likeliest inside it. One value, or one by class name (classes not named have none); 0 or
    null: none. Pixels instead of square metres where the model's imagery has no ground sample distance."""
    seed: int = 0

    @model_validator(mode="after")
    def _interval_ordered(self) -> SamplerConfig:
        if self.guidance_interval[1] < self.guidance_interval[0]:
            raise ValueError("guidance_interval: its end lies before its beginning")
        return self
