"""Section `data`: location of imagery and labels, classes, splits, sampling and augmentation."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from idgbr.config.node import Node, Unit

_COLOUR = r"^#[0-9a-fA-F]{6}$"


class ClassSpec(Node):
    name: str
    """Name shown in tables, legends and polygon attributes."""
    colour: str = Field(pattern=_COLOUR)
    """Display colour, and the label colour of colour-coded rasters, as #rrggbb."""


class FolderSource(Node):
    kind: Literal["folder"] = "folder"
    images: list[str]
    """Files, folders or globs of images: local, s3:// or gs://."""
    labels: list[str] = []
    """Files, folders or globs of labels, paired with the images by the part of the stem matched by `pair`; a single
    file for several images, raster or vector, is read where each image lies."""
    pair: str = r"(.+)"
    """Regular expression, searched in the stems of images and labels; two files pair if its first group is equal."""


class JsonlSource(Node):
    kind: Literal["jsonl"] = "jsonl"
    files: dict[Literal["train", "select", "test"], list[str]]
    """JSONL lists per split, one object per line: image, label_index, optionally rough_label_index and text."""
    root: str = ""
    """Folder to which the paths in the lists are relative (default: the folder of the list)."""


class PresetSource(Node):
    kind: Literal["preset"] = "preset"
    preset: Literal["potsdam", "vaihingen", "whu_building", "chn6_cug", "fgfd"]
    """Layout of one of the paper's data sets, as distributed."""
    root: str
    """Folder with the unpacked data set."""
    composition: Literal["RGB", "IRRG", "RGBIR"] = "RGB"
    """Potsdam only: which band composition to read."""
    eroded: bool = False
    """ISPRS only: labels whose boundary pixels are ignored (`_noBoundary`)."""


class SyntheticSource(Node):
    kind: Literal["synthetic"] = "synthetic"
    folder: str
    """Folder of the generated scenes."""
    scenes: int = Field(3, ge=1)
    size: int = Field(768, ge=64)
    """Width and height of a scene in pixels."""
    seed: int = 0


Source = Annotated[FolderSource | JsonlSource | PresetSource | SyntheticSource, Field(discriminator="kind")]


def _number_or_word(value: Any) -> Any:
    """A whole number, also where it was quoted; anything else as a word. YAML's null is an attribute without value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value).strip()
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else text


RawValue = Annotated[int | str, BeforeValidator(_number_or_word)]
"""Raw value in a label: the value of a pixel, or of an attribute."""


class LabelConfig(Node):
    kind: Literal["index", "colour", "vector"] = "index"
    """How labels are stored: class index per pixel, colour per pixel (the classes' colours), or polygons."""
    values: dict[RawValue, int] = {}
    """Mapping of raw values (index), or of values of `attribute` (vector), to class ids. If empty, raw values are class
    ids, and values of the attribute are class ids or names. A value named here is used even if it is the nodata value
    of the label file."""
    nonzero: bool = False
    """index: any non-zero value is class 1 (binary sets stored as 0/255, or 0 and a colour)."""
    threshold: float | None = Field(None, gt=0)
    """index: values at or above this are class 1, others class 0, for masks blurred by compression or resizing; empty:
    no threshold. JPEG masks of 0 and 255 get the threshold 128 automatically."""
    ignore: list[RawValue] = [255]
    """Raw values (index), or values of `attribute` (vector), that mean "no label"."""
    ignore_colours: list[Annotated[str, Field(pattern=_COLOUR)]] = ["#000000"]
    """colour: colours that mean "no label"."""
    allow_missing: list[str] = []
    """Names of classes that may be absent from the train split; any other absent class ends the job, since it usually
    means that labels are read wrongly."""
    layer: str = ""
    """vector: layer of a file that has several layers of polygons."""
    attribute: str = ""
    """vector: attribute with the class name or id; if empty, all polygons get the class id `burn`."""
    burn: int = 1
    """vector: class id of polygons if no attribute is named."""
    background: int = 0
    """vector: class id outside all polygons."""
    by_place: bool = False
    """A label file covers a larger area than its image; the part at the image's location is read, by georeferencing. A
    single label file for several images is always read this way."""
    size_slack: int = Field(0, ge=0)
    """Number of pixels by which a label raster may be larger or smaller than its image at the right and lower edge;
    missing pixels have no label."""

    @model_validator(mode="after")
    def _of_one_kind(self) -> LabelConfig:
        for key, kind in _KINDS.items():
            if self.kind not in kind and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key}: found with kind {self.kind}; expected kind {' or '.join(kind)}, or no such key"
                )
        chosen = [key for key in ("values", "nonzero", "threshold") if getattr(self, key)]
        if len(chosen) > 1:
            raise ValueError(f"found {' and '.join(chosen)}; expected one of them, since each reads all values")
        words = [key for key in (*self.values, *self.ignore) if isinstance(key, str)] if self.kind == "index" else []
        if words:
            raise ValueError(
                f"values, ignore: found {', '.join(words)} with kind index; expected whole numbers, which pixels hold"
            )
        return self


_KINDS = {
    "values": ("index", "vector"),
    "nonzero": ("index",),
    "threshold": ("index",),
    "attribute": ("vector",),
    "layer": ("vector",),
    "burn": ("vector",),
    "background": ("vector",),
}
"""Keys of `data.label` that are read with some kinds of labels only."""


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
    """listed: assigned by the source (presets, JSONL, synthetic); file: `regions`; fraction: whole files, shuffled by
    seed; block: square blocks of every scene, shuffled by seed."""
    regions: dict[Literal["train", "select", "test"], list[FileRegion]] = {}
    """by file: the scenes, or boxes of scenes, of each split."""
    select: Unit = 0.15
    """by fraction or block: share of the validation split."""
    test: Unit = 0.25
    """by fraction or block: share of the test split."""
    block: int = Field(512, ge=32)
    """by block: side of a block in pixels."""
    seed: int = 0


class SamplingConfig(Node):
    class_weight: Unit = 0.5
    """0: classes are sampled in proportion to their area; 1: all classes are at the centre of equally many windows."""
    boundary_weight: Unit = 0.5
    """Share of windows centred near a label boundary."""


class AugmentationConfig(Node):
    dihedral: bool = True
    """The eight combinations of flips and rotations by 90 degrees."""
    rotation: float = Field(0.0, ge=0, le=45)
    """Largest additional rotation in either direction, in degrees."""
    scale: float = Field(0.0, ge=0, le=1)
    """Largest change of scale: 0.25 scales objects by factors between 1 / 1.25 and 1.25."""
    brightness: float = Field(0.2, ge=0)
    """Largest shift, in standard deviations of a band, common to all bands."""
    contrast: float = Field(0.2, ge=0, lt=1)
    """Largest relative change of contrast."""
    band_jitter: float = Field(0.1, ge=0)
    """Largest shift of a single band, in its standard deviations."""
    band_mix: float = Field(0.0, ge=0, le=1)
    """Largest share of every band that is added to another band; this changes colours but keeps edges."""
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
    nodata_tolerance: float = Field(0.0, ge=0)
    """Values no further than this from nodata in every band are nodata, too: margins that lossy compression blurred."""
    alpha: Literal["auto", "mask", "band", "ignore"] = "auto"
    """How a band tagged alpha is read. auto: as validity if it looks like a mask, as an image band if it has imagery
    (near infrared is often tagged alpha); mask: as validity; band: as an image band; ignore: not at all."""
    gcps: Literal["refuse", "warp", "ignore"] = "refuse"
    """Images that have ground control points but no geotransform: refuse, warp to the CRS of the points, or ignore the
    points and read the image without georeferencing."""
    value_range: Literal["refuse", "match", "accept"] = "refuse"
    """Imagery whose values are on another scale than the model's training imagery: refuse, match by quantiles, or
    accept without change."""
    normalisation: Literal["measured", "imagenet"] = "measured"
    """measured: mean and deviation per band of the training split; imagenet: ImageNet's, for three 8-bit bands."""
    gsd: float | None = Field(None, gt=0)
    """Ground sample distance in metres, for imagery whose files have none."""
    gsd_mismatch: Literal["refuse", "resample"] = "refuse"
    """Treatment of imagery whose ground sample distance differs from the model's by more than a factor of 1.5."""
    licence: str = ""
    """Licence terms of imagery and labels, for the model card: they also apply to the trained model."""
    split: SplitConfig = SplitConfig()
    sampling: SamplingConfig = SamplingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()

    @model_validator(mode="after")
    def _classes_differ(self) -> DataConfig:
        names = [spec.name.strip().lower() for spec in self.classes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"classes: found {', '.join(twice)} twice; expected a name of its own for every class")
        colours = [spec.colour.lower() for spec in self.classes] if self.label.kind == "colour" else []
        if twice := sorted({colour for colour in colours if colours.count(colour) > 1}):
            raise ValueError(f"classes: found {', '.join(twice)} twice; expected one class for a colour in the labels")
        if (self.label.nonzero or self.label.threshold is not None) and len(self.classes) != 2:
            key = "nonzero" if self.label.nonzero else "threshold"
            raise ValueError(f"label.{key}: found {len(self.classes)} classes; expected two, since it tells two apart")
        return self

    @model_validator(mode="after")
    def _missing_are_classes(self) -> DataConfig:
        names = [spec.name for spec in self.classes]
        if unknown := sorted(set(self.label.allow_missing) - set(names)):
            raise ValueError(
                f"label.allow_missing: found {', '.join(unknown)}; expected names of classes: {', '.join(names)}"
            )
        return self
