"""The typed tree of one experiment: every key a YAML or an override may set, with its meaning.

Pure data: nothing here reads a file. Unknown keys are refused by every node.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Precision = Literal["fp32", "bf16", "fp16"]


class Node(BaseModel):
    """A node of the tree: immutable, unknown keys refused, docstrings of the fields become their help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ClassSpec(Node):
    name: str
    """Name shown in tables, legends and polygon attributes."""
    colour: str = Field(pattern=r"^#[0-9a-fA-F]{6}$")
    """Display colour, and the label colour of colour-coded rasters, as #rrggbb."""


class FolderSource(Node):
    kind: Literal["folder"] = "folder"
    images: list[str]
    """Files, folders or globs of images: local, s3:// or gs://."""
    labels: list[str] = []
    """Files, folders or globs of labels, paired with the images by the part of the stem matched by `pair`; a single
    vector file serves every image."""
    pair: str = r"(.+)"
    """Regular expression whose first group, searched in the stems of images and labels, must agree for two to pair."""


class JsonlSource(Node):
    kind: Literal["jsonl"] = "jsonl"
    files: dict[Literal["train", "select", "test"], list[str]]
    """JSONL lists per split, one object a line: image, label_index, optionally rough_label_index and text."""
    root: str = ""
    """Folder the paths in the lists are relative to (default: the list's own folder)."""


class PresetSource(Node):
    kind: Literal["preset"] = "preset"
    preset: Literal["potsdam", "vaihingen", "whu_building", "chn6_cug", "fgfd"]
    """Layout of one of the paper's data sets, as distributed."""
    root: str
    """Folder the data set was unpacked to."""
    composition: Literal["RGB", "IRRG", "RGBIR"] = "RGB"
    """Potsdam only: which band composition to read."""
    eroded: bool = False
    """ISPRS only: labels whose boundary pixels are ignored (`_noBoundary`)."""


class SyntheticSource(Node):
    kind: Literal["synthetic"] = "synthetic"
    folder: str
    """Where the generated scenes are kept."""
    scenes: int = Field(3, ge=1)
    size: int = Field(768, ge=64)
    """Width and height of a scene in pixels."""
    seed: int = 0


Source = Annotated[FolderSource | JsonlSource | PresetSource | SyntheticSource, Field(discriminator="kind")]


class LabelConfig(Node):
    kind: Literal["index", "colour", "vector"] = "index"
    """How labels are stored: class index per pixel, colour per pixel (the classes' colours), or polygons."""
    values: dict[int, int] = {}
    """index: raw value -> class id; empty means the raw value is the class id."""
    nonzero: bool = False
    """index: any non-zero value is class 1 (binary sets stored as 0/255)."""
    ignore: list[int] = [255]
    """index: raw values that carry no label."""
    ignore_colours: list[str] = ["#000000"]
    """colour: colours that carry no label."""
    attribute: str = ""
    """vector: attribute holding the class name or id; empty burns every polygon as `burn`."""
    burn: int = 1
    """vector: class id for polygons when no attribute is named."""
    background: int = 0
    """vector: class id where no polygon is."""


class Box(Node):
    """A rectangle as fractions of a scene's height and width."""

    top: Unit = 0.0
    left: Unit = 0.0
    bottom: Unit = 1.0
    right: Unit = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Box:
        if self.bottom <= self.top or self.right <= self.left:
            raise ValueError("a box needs bottom > top and right > left")
        return self


class FileRegion(Node):
    match: str
    """Glob on the image's file name."""
    box: Box = Box()
    """The part of each matching scene that belongs to the split."""


class SplitConfig(Node):
    by: Literal["listed", "file", "fraction", "block"] = "fraction"
    """listed: the source says (presets, JSONL, synthetic); file: `regions`; fraction: whole files, shuffled by seed;
    block: square blocks of every scene, shuffled by seed."""
    regions: dict[Literal["train", "select", "test"], list[FileRegion]] = {}
    """by file: the scenes, or boxes of scenes, of each split."""
    select: Unit = 0.15
    """by fraction or block: share held out for choices."""
    test: Unit = 0.25
    """by fraction or block: share held out for claims."""
    block: int = Field(512, ge=32)
    """by block: side in pixels."""
    seed: int = 0


class SamplingConfig(Node):
    class_weight: Unit = 0.5
    """0: draws follow the area of the classes; 1: every class is the centre of equally many draws."""
    boundary_weight: Unit = 0.5
    """Share of draws centred near a label boundary."""


class AugmentationConfig(Node):
    dihedral: bool = True
    """The eight flips and quarter turns."""
    rotation: float = Field(0.0, ge=0, le=45)
    """Largest turn either way, in degrees, beside the quarter turns."""
    scale: float = Field(0.0, ge=0, le=1)
    """Largest zoom: 0.25 shows objects between 1 / 1.25 and 1.25 times their size."""
    brightness: float = Field(0.2, ge=0)
    """Largest shift, in standard deviations of a band, common to all bands."""
    contrast: float = Field(0.2, ge=0, lt=1)
    """Largest relative change of contrast."""
    band_jitter: float = Field(0.1, ge=0)
    """Largest shift of a single band, in its standard deviations."""
    band_mix: float = Field(0.0, ge=0, le=1)
    """Largest share of every band that is added to another one: colours lose their meaning, edges keep theirs."""
    noise: float = Field(0.0, ge=0)
    """Standard deviation of white noise, in standard deviations of a band."""


class DataConfig(Node):
    name: str
    """Name of the data set; part of run and model names."""
    source: Source
    classes: list[ClassSpec] = Field(min_length=2, max_length=255)
    label: LabelConfig = LabelConfig()
    bands: list[int | str] = [1, 2, 3]
    """Bands to read, 1-based indices or band descriptions, in the model's order."""
    nodata: float | None = None
    """Overrides the file's nodata value."""
    normalisation: Literal["measured", "imagenet"] = "measured"
    """measured: mean and deviation per band of the training split; imagenet: ImageNet's, for three 8-bit bands."""
    gsd: float | None = Field(None, gt=0)
    """Ground sample distance in metres, for imagery whose files carry none."""
    gsd_mismatch: Literal["refuse", "resample"] = "refuse"
    """What to do with imagery whose ground sample distance is off the model's by more than a factor 1.5."""
    licence: str = ""
    """Terms of imagery and labels, for the model card: a model is bound by what it learnt from."""
    split: SplitConfig = SplitConfig()
    sampling: SamplingConfig = SamplingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()


class CoarseConfig(Node):
    decoder: str = "FPN"
    """Any decoder of segmentation_models_pytorch by name: Unet, FPN, Segformer, DeepLabV3Plus, UPerNet, ..."""
    encoder: str = "tu-tf_efficientnet_lite0"
    """Any encoder name segmentation_models_pytorch takes; tu-NAME is timm's NAME."""
    weights: str = "package:efficientnet-lite0"
    """hub | package:efficientnet-lite0 | none | path of a state dict of the encoder."""
    window: int = Field(192, ge=32)
    """Training window in pixels."""
    dice_weight: float = Field(1.0, ge=0)
    """Weight of the Dice loss beside cross-entropy."""
    folds: int = Field(2, ge=0)
    """Stage 2 trains on coarse maps of backbones that never saw the ground: blocks of the training split in this many
    folds, one backbone a fold. 0: maps of the final backbone itself."""
    fold_block: int = Field(512, ge=32)
    """Side of the blocks that are dealt to the folds, in pixels."""


class RefinerConfig(Node):
    coarse_input: Literal["ids", "probabilities"] = "ids"
    """What the refiner is given of the coarse map."""
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
    def _autoencoder_takes_pictures(self) -> RefinerConfig:
        if self.codec == "kl-vae" and (self.embedding != "learned" or self.prediction == "label"):
            raise ValueError("codec kl-vae needs embedding learned (three planes) and prediction epsilon, v or sample")
        return self


class MeanFieldConfig(Node):
    """The last step of refinement: neighbours of one colour agree on their class."""

    rounds: int = Field(0, ge=0)
    """Rounds of agreement; 0 leaves the denoiser's probabilities as they are."""
    reach: float = Field(15.0, gt=0)
    """Standard deviation of the distance to a neighbour that has a say, in pixels."""
    colour: float = Field(0.1, gt=0)
    """Standard deviation of the colour difference that still counts as alike, in standard deviations of a band."""
    weight: float = Field(5.0, ge=0)
    """Weight of neighbours of like colour against the pixel's own log-probability."""
    smooth_weight: float = Field(3.0, ge=0)
    """Weight of the nearest neighbours, whatever their colour."""


class SamplerConfig(Node):
    steps: int = Field(4, ge=1, le=1000)
    samples: int = Field(4, ge=1)
    """Independent samples whose probabilities are averaged; their disagreement is the uncertainty."""
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
    seed: int = 0

    @model_validator(mode="after")
    def _interval_ordered(self) -> SamplerConfig:
        if self.guidance_interval[1] < self.guidance_interval[0]:
            raise ValueError("guidance_interval: its end lies before its beginning")
        return self


class StageTraining(Node):
    seed: int = 0
    """Seed of the stage's draws, of the weights that start at random, and of its noise."""
    augmentation: AugmentationConfig | None = None
    """Changes of this stage's windows, instead of data.augmentation."""
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
    precision: Precision = "fp32"
    optimiser: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit: AdamW whose moments take a byte each; needs a GPU and the package bitsandbytes."""
    channels_last: bool = False
    """Convolutions in channels-last memory, faster on GPUs in half precision."""
    compile: bool = False
    """torch.compile the model: slower to begin, faster after."""
    validate_every: int = Field(200, ge=1)
    """Steps between measurements on the select split (and checkpoints)."""
    patience: int = Field(0, ge=0)
    """Measurements without a gain before training stops early; 0: never."""
    validate_windows: int = Field(32, ge=1)
    """Windows of the select split a measurement uses at most."""


class AlignmentConfig(Node):
    """Representation alignment: the guidance net's deepest residual learns to resemble a frozen ViT's tokens."""

    teacher: str = ""
    """A timm ViT by name, or `backbone`: the encoder of the stage 1 just trained. Empty: no alignment."""
    weights: str = "hub"
    """Of a timm ViT: hub | none | path of a state dict."""
    weight: float = Field(0.5, ge=0)
    """Weight of the alignment loss beside the denoiser's."""
    steps: int = Field(200, ge=1)
    """How many of the first steps it takes part in."""


class RefinerTraining(StageTraining):
    # A class of its own, so that a file that sets one key of the section keeps these defaults for the others.
    ema: float = Field(0.99, ge=0, lt=1)
    """Decay of the exponential moving average that is evaluated and kept; 0: none."""
    precision: Precision = "bf16"
    gradient_checkpointing: bool = False
    """Compute activations again on the way back instead of keeping them."""
    alignment: AlignmentConfig = AlignmentConfig()


class TrainingConfig(Node):
    coarse: StageTraining = StageTraining()
    refiner: RefinerTraining = RefinerTraining()


class WindowsConfig(Node):
    """How a scene is cut for one stage."""

    window: int = Field(256, ge=32)
    """Inference window in pixels."""
    overlap: int = Field(64, ge=0)
    """Pixels shared by neighbouring windows, blended."""
    batch: int = Field(4, ge=1)
    """Windows predicted at once."""

    @model_validator(mode="after")
    def _overlap_fits(self) -> WindowsConfig:
        if self.overlap * 2 > self.window:
            raise ValueError(f"overlap {self.overlap} must be at most half of window {self.window}")
        return self


class CoarseWindows(WindowsConfig):
    """Stage 1 takes large windows: it lives on context."""

    window: int = Field(384, ge=32)
    """Inference window in pixels."""
    batch: int = Field(2, ge=1)
    """Windows predicted at once."""


class RefinerWindows(WindowsConfig):
    """Stage 2 looks around a boundary, and its attention is dearest in large windows."""

    window: int = Field(128, ge=32)
    """Inference window in pixels."""
    overlap: int = Field(32, ge=0)
    """Pixels shared by neighbouring windows, blended."""
    batch: int = Field(8, ge=1)
    """Windows predicted at once."""


class InferenceConfig(Node):
    coarse: CoarseWindows = CoarseWindows()
    refiner: RefinerWindows = RefinerWindows()
    precision: Precision = "fp32"
    """Arithmetic of both stages."""


class EvaluationConfig(Node):
    baselines: list[Literal["guided_filter", "grabcut", "densecrf"]] = ["guided_filter", "grabcut", "densecrf"]
    """Classical refiners in the table; DenseCRF only where pydensecrf2 is installed."""
    block: int = Field(256, ge=16)
    """Side in pixels of the blocks of the repair figures and the bootstrap."""
    bootstrap: int = Field(1000, ge=0)
    """Resamples of blocks for the intervals."""
    report_windows: int = Field(3, ge=1)
    """Best, median and worst windows shown, of each so many."""


Figure = Literal["miou", "accuracy", "mean_f1", "boundary_iou", "boundary_f1", "wfm3_edge", "wfm5_edge", "wfm7_edge"]


class GainConfig(Node):
    """What makes a model better: one figure, so that luck has one chance only."""

    figure: Figure = "boundary_iou"
    least: Unit = 0.0
    """Smallest gain over the champion that is worth a change; the interval of the gain lies above zero in any case."""


class GateConfig(Node):
    """What a new version has to show before it becomes champion. Figures are those of the refined maps, in 0..1."""

    promote: bool = False
    """Pipeline: put the version it registers through the gate at once."""
    source: Source | None = None
    """Scenes of the gate, labelled as `data.label` says; of a source that lists splits, those of its test split. Empty:
    the test split of `data`. Ground that a model was trained or tuned on is refused."""
    floors: dict[Figure, Unit] = {}
    """Least value of a figure, with or without a champion; all that a first promotion needs."""
    ceilings: dict[Literal["repair_worse", "seconds_per_megapixel", "megabytes"], Annotated[float, Field(gt=0)]] = {
        "repair_worse": 0.5
    }
    """Most of what should be little: share of blocks that refinement made worse, cost, size of the model folder."""
    margins: dict[Figure | Literal["repair_worse"], Unit] = {
        "miou": 0.01,
        "boundary_iou": 0.01,
        "wfm3_edge": 0.01,
        "repair_worse": 0.1,
    }
    """How much worse than the champion's a figure may be."""
    class_margins: dict[Literal["iou", "f1", "boundary_iou", "boundary_f1"], Unit] = {"iou": 0.03, "boundary_iou": 0.03}
    """The same for the figures of every single class."""
    gain: GainConfig = GainConfig()
    slowdown: float = Field(2.0, ge=1.0)
    """How many times the champion's seconds per megapixel a model may take."""
    blocks: int = Field(20, ge=2)
    """Fewest labelled blocks a gate may stand on: with fewer the intervals say little."""


class TrackingConfig(Node):
    uri: str = "sqlite:///mlflow.db"
    """MLflow store: SQLite on one machine, a server's URI on a cluster."""
    experiment: str = "idgbr"
    model_name: str = ""
    """Registered model; default idgbr-DATA."""


class ResourcesConfig(Node):
    storage: str = "runs"
    """Folder or URI for checkpoints, coarse maps, model folders and reports."""
    ray_address: str = ""
    """Address of a running cluster; empty joins the one of the job, or starts a local one."""
    logical_cpus: int = Field(4, ge=1)
    """CPUs a local Ray declares."""
    train_workers: int = Field(2, ge=1)
    infer_workers: int = Field(2, ge=1)
    cpus_per_worker: float = Field(1.0, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    threads_per_worker: int = Field(1, ge=1)
    """OMP and torch threads of each worker."""
    max_failures: int = Field(3, ge=-1)
    """Worker failures a training run survives."""


class Experiment(Node):
    """One experiment, from imagery to a registered model."""

    data: DataConfig
    coarse: CoarseConfig = CoarseConfig()
    refiner: RefinerConfig = RefinerConfig()
    sampler: SamplerConfig = SamplerConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gate: GateConfig = GateConfig()
    tracking: TrackingConfig = TrackingConfig()
    resources: ResourcesConfig = ResourcesConfig()
