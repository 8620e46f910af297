"""The paper's five data sets in the layouts in which they are distributed.

Splits: the ISPRS sets use the training and test tiles of the benchmark. The other sets use their folders: a folder val
is `select`, or `test` if there is no test folder. If a data set has no validation split, some of its training files
become `select`: fixed tiles for the ISPRS sets, else a tenth by hash of the name. This project chose these files; they
are not part of a benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from idgbr.config.data import ClassSpec, DataConfig, LabelConfig, PresetSource
from idgbr.datasets.labelled import LabelledScene, make_scene, unique_ids
from idgbr.errors import UserError
from idgbr.files import hash_text

ISPRS_CLASSES = [
    ClassSpec(name="impervious", colour="#ffffff"),
    ClassSpec(name="building", colour="#0000ff"),
    ClassSpec(name="low_vegetation", colour="#00ffff"),
    ClassSpec(name="tree", colour="#00ff00"),
    ClassSpec(name="car", colour="#ffff00"),
    ClassSpec(name="clutter", colour="#ff0000"),
]
"""Classes of the ISPRS benchmarks in the order of their ids, with their label colours."""

COLOUR_LABELS = LabelConfig(kind="colour")
"""How the ISPRS sets store labels; black (eroded boundaries) carries none."""
BINARY_LABELS = LabelConfig(nonzero=True, ignore=[])
"""How the binary sets store labels: 0, and anything else for the class."""

_POTSDAM_TRAIN = {f"{r}_{c}" for r in (2, 3, 4, 5) for c in (10, 11, 12)} | {
    f"{r}_{c}" for r in (6, 7) for c in range(7, 13)
}
_POTSDAM_TEST = {
    "2_13",
    "2_14",
    "3_13",
    "3_14",
    "4_13",
    "4_14",
    "4_15",
    "5_13",
    "5_14",
    "5_15",
    "6_13",
    "6_14",
    "6_15",
    "7_13",
}
_POTSDAM_SELECT = {"2_10", "5_12", "7_8"}
_VAIHINGEN_TRAIN = {str(n) for n in (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37)}
_VAIHINGEN_TEST = {str(n) for n in (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38)}
_VAIHINGEN_SELECT = {"15", "30"}

Entry = tuple[Path, Path, str]  # image, label, split


@dataclass(frozen=True)
class Preset:
    """A data set's layout: how to list it below its folder, and how its labels are stored."""

    entries: Callable[[Path, PresetSource], list[Entry]]
    label: LabelConfig
    classes: int
    layout: str


def preset_scenes(source: PresetSource, config: DataConfig) -> list[LabelledScene]:
    """The scenes of one of the paper's data sets.

    Raises:
        UserError: the folder is missing or not laid out as expected, an image lacks its label, or `data.classes` or
            `data.label` cannot be those of the data set.
    """
    preset = PRESETS[source.preset]
    _check_config(source.preset, preset, config)
    root = Path(source.root)
    if not root.is_dir():
        raise UserError(f"data.source.root: no folder {root}; expected the unpacked {source.preset} data set")
    entries = sorted(preset.entries(root, source))
    if not entries:
        raise UserError(f"{root}: no image of {source.preset} found; expected {preset.layout}")
    for image, label, _ in entries:
        if not label.is_file():
            raise UserError(f"{image} has no label: expected {label}")
    ids = unique_ids([str(image) for image, _, _ in entries])
    return [
        LabelledScene(name, make_scene(str(image), config), str(label), split)
        for name, (image, label, split) in zip(ids, entries, strict=True)
    ]


def _check_config(name: str, preset: Preset, config: DataConfig) -> None:
    if len(config.classes) != preset.classes:
        raise UserError(f"data.classes: {name} has {preset.classes} classes, found {len(config.classes)}")
    label = config.label
    if preset.label.kind == "colour":
        if label.kind != "colour":
            raise UserError(f"data.label.kind: {name} stores labels as colours, found {label.kind}")
    elif label.kind != "index" or not label.nonzero or label.ignore:
        raise UserError(
            f"data.label: {name} stores 0 and non-zero; expected kind: index, nonzero: true, ignore: [], "
            f"found kind: {label.kind}, nonzero: {str(label.nonzero).lower()}, ignore: {label.ignore}"
        )


def _isprs_split(tile: str, train: set[str], test: set[str], select: set[str], path: Path) -> str:
    if tile in select:
        return "select"
    if tile in train or tile in test:
        return "train" if tile in train else "test"
    raise UserError(f"{path}: tile {tile} is not one of the benchmark's")


def _potsdam(root: Path, source: PresetSource) -> list[Entry]:
    folder = {"RGB": "2_Ortho_RGB", "IRRG": "3_Ortho_IRRG", "RGBIR": "4_Ortho_RGBIR"}[source.composition]
    ending = "label_noBoundary" if source.eroded else "label"
    labels = root / ("5_Labels_all_noBoundary" if source.eroded else "5_Labels_all")
    if not labels.is_dir():
        labels = root / "5_Labels_all"
    out = []
    for image in (root / folder).glob(f"top_potsdam_*_{source.composition}.tif"):
        match = re.fullmatch(r"top_potsdam_0*(\d+)_0*(\d+)", image.stem.removesuffix(f"_{source.composition}"))
        if match:
            split = _isprs_split("_".join(match.groups()), _POTSDAM_TRAIN, _POTSDAM_TEST, _POTSDAM_SELECT, image)
            stem = image.stem.removesuffix(f"_{source.composition}")
            out.append((image, labels / f"{stem}_{ending}.tif", split))
    return out


def _vaihingen(root: Path, source: PresetSource) -> list[Entry]:
    """The complete ground truth where it is there; else the participants' labels, without the tiles they lack."""
    ending = "_noBoundary" if source.eroded else ""
    complete = root / "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE"
    eroded = [root / f"{complete.name.replace('_COMPLETE', '_eroded_COMPLETE')}"] if source.eroded else []
    folders = [f for f in (*eroded, complete, root / "gts_for_participants") if f.is_dir()]
    out = []
    for image in (root / "top").glob("top_mosaic_09cm_area*.tif"):
        tile = image.stem.removeprefix("top_mosaic_09cm_area")
        split = _isprs_split(tile, _VAIHINGEN_TRAIN, _VAIHINGEN_TEST, _VAIHINGEN_SELECT, image)
        candidates = [folder / f"{image.stem}{ending}.tif" for folder in folders]
        label = next((path for path in candidates if path.is_file()), None)
        # Tiles of the test set had no public labels at first: copies with the participants' labels alone are common.
        if label is None and split == "test" and complete not in folders:
            continue
        fallback = (folders[0] if folders else complete) / f"{image.stem}{ending}.tif"
        out.append((image, label or fallback, split))
    return out


def _foldered(images: str, labels: str, image_end: str = "", label_end: str = "") -> Callable[..., list[Entry]]:
    """Lists `{train,val,test}/IMAGES/*` with labels of the same name, some ending swapped for another."""

    def entries(root: Path, source: PresetSource) -> list[Entry]:
        has_test = (root / "test").is_dir()
        out = []
        for folder in ("train", "val", "test"):
            split = {"train": "train", "val": "select" if has_test else "test", "test": "test"}[folder]
            labels_here = {path.stem: path for path in _rasters(root / folder / labels)}
            for image in _rasters(root / folder / images):
                if image.stem.endswith(image_end):
                    stem = image.stem.removesuffix(image_end) + label_end
                    out.append((image, labels_here.get(stem, root / folder / labels / f"{stem}.png"), split))
        return out if has_test else _set_aside(out)

    return entries


def _rasters(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.suffix.lower() in {".tif", ".tiff", ".png", ".jpg", ".jpeg"})


def _set_aside(entries: list[Entry]) -> list[Entry]:
    """The entries with a tenth of the training files, by hash of their names, as select."""
    train = [image.stem for image, _, split in entries if split == "train"]
    ranked = sorted(train, key=lambda stem: hash_text(stem, 64))
    chosen = set(ranked[: max(1, len(train) // 10)]) if len(train) > 1 else set()
    return [(i, la, "select" if split == "train" and i.stem in chosen else split) for i, la, split in entries]


PRESETS: dict[str, Preset] = {
    "potsdam": Preset(
        _potsdam, COLOUR_LABELS, 6, "2_Ortho_RGB/top_potsdam_R_C_RGB.tif and 5_Labels_all/top_potsdam_R_C_label.tif"
    ),
    "vaihingen": Preset(
        _vaihingen,
        COLOUR_LABELS,
        6,
        "top/top_mosaic_09cm_areaN.tif and labels of the same name under "
        "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE/ or gts_for_participants/",
    ),
    "whu_building": Preset(_foldered("image", "label"), BINARY_LABELS, 2, "{train,val,test}/{image,label}/*.tif"),
    "chn6_cug": Preset(
        _foldered("images", "gt", "_sat", "_mask"),
        BINARY_LABELS,
        2,
        "{train,val}/images/*_sat.jpg and {train,val}/gt/*_mask.png",
    ),
    "fgfd": Preset(_foldered("images", "labels"), BINARY_LABELS, 2, "{train,val,test}/{images,labels}/*"),
}
"""The layouts by preset name."""
