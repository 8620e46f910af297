"""Each preset on a tiny tree laid out as the data set is distributed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from idgbr.config.data import ClassSpec, DataConfig, LabelConfig, PresetSource, SplitConfig
from idgbr.datasets.catalogue import catalogue
from idgbr.datasets.labelled import LabelledScene
from idgbr.datasets.prepare import prepare_region
from idgbr.datasets.presets import BINARY_LABELS, COLOUR_LABELS, ISPRS_CLASSES
from idgbr.datasets.splits import split_regions
from idgbr.errors import UserError

WriteRaster = Callable[..., str]
BINARY = [ClassSpec(name="background", colour="#000000"), ClassSpec(name="thing", colour="#dc2828")]
IMAGE = np.random.default_rng(0).integers(1, 255, (4, 32, 32), dtype=np.uint8)
COLOUR = np.zeros((3, 32, 32), np.uint8)
COLOUR[2, :16] = 255  # building
COLOUR[:, 16:30] = 255  # impervious; the last two rows are black
MASK = np.pad(np.full((16, 16), 255, np.uint8), 8)


def _config(preset: str, root: Path, **source: object) -> DataConfig:
    isprs = preset in ("potsdam", "vaihingen")
    return DataConfig(
        name=preset,
        source=PresetSource(preset=preset, root=str(root), **source),
        classes=ISPRS_CLASSES if isprs else BINARY,
        label=COLOUR_LABELS if isprs else BINARY_LABELS,
        split=SplitConfig(by="listed"),
    )


def _splits(scenes: list[LabelledScene]) -> dict[str, str | None]:
    return {scene.id: scene.split for scene in scenes}


def _histogram(config: DataConfig, folder: Path) -> tuple[int, ...]:
    region = split_regions(catalogue(config), config.split)[0]
    return prepare_region(region, config, str(folder)).histogram


@pytest.mark.parametrize(
    ("composition", "folder"), [("RGB", "2_Ortho_RGB"), ("IRRG", "3_Ortho_IRRG"), ("RGBIR", "4_Ortho_RGBIR")]
)
def test_potsdam(tmp_path: Path, write_raster: WriteRaster, composition: str, folder: str) -> None:
    bands = IMAGE[: len(composition) if composition == "RGBIR" else 3][:4]
    for tile in ("2_11", "2_10", "7_13"):
        write_raster(tmp_path / folder / f"top_potsdam_{tile}_{composition}.tif", bands, gsd=0.05)
        write_raster(tmp_path / "5_Labels_all" / f"top_potsdam_{tile}_label.tif", COLOUR, gsd=0.05)
        write_raster(tmp_path / "5_Labels_all" / f"top_potsdam_{tile}_label_noBoundary.tif", COLOUR * 0, gsd=0.05)
    config = _config("potsdam", tmp_path, composition=composition)
    assert list(_splits(catalogue(config)).values()) == ["select", "train", "test"]
    assert _histogram(config, tmp_path / "ready")[:2] == (14 * 32, 16 * 32)
    eroded = _config("potsdam", tmp_path, composition=composition, eroded=True)
    assert all(scene.label.endswith("_label_noBoundary.tif") for scene in catalogue(eroded))


@pytest.mark.parametrize("labels", ["gts_for_participants", "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE"])
def test_vaihingen(tmp_path: Path, write_raster: WriteRaster, labels: str) -> None:
    for tile in (1, 15, 2):
        write_raster(tmp_path / "top" / f"top_mosaic_09cm_area{tile}.tif", IMAGE[:3], gsd=0.09)
        if tile != 2 or "COMPLETE" in labels:
            write_raster(tmp_path / labels / f"top_mosaic_09cm_area{tile}.tif", COLOUR, gsd=0.09)
    config = _config("vaihingen", tmp_path)
    found = _splits(catalogue(config))
    assert found["top_mosaic_09cm_area1"] == "train"
    assert found["top_mosaic_09cm_area15"] == "select"
    assert found.get("top_mosaic_09cm_area2") == ("test" if "COMPLETE" in labels else None)
    if "COMPLETE" in labels:
        assert _histogram(config, tmp_path / "ready")[:2] == (14 * 32, 16 * 32)
    else:
        with pytest.raises(UserError, match="test split is empty"):
            _histogram(config, tmp_path / "ready")


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_whu_building(tmp_path: Path, write_raster: WriteRaster, ending: str) -> None:
    for split in ("train", "val", "test"):
        write_raster(tmp_path / split / "image" / f"1.{ending}", IMAGE[:3], crs=None)
        write_raster(tmp_path / split / "label" / f"1.{ending}", MASK, crs=None)
    config = _config("whu_building", tmp_path)
    assert _splits(catalogue(config)) == {"test_image_1": "test", "train_image_1": "train", "val_image_1": "select"}
    assert _histogram(config, tmp_path / "ready") == (32 * 32 - 256, 256)


def test_chn6_cug(tmp_path: Path, write_raster: WriteRaster) -> None:
    for split, count in (("train", 12), ("val", 2)):
        for number in range(count):
            write_raster(tmp_path / split / "images" / f"{split[0]}{number}_sat.jpg", IMAGE[:3], crs=None)
            write_raster(tmp_path / split / "gt" / f"{split[0]}{number}_mask.png", MASK, crs=None)
    config = _config("chn6_cug", tmp_path)
    splits = list(_splits(catalogue(config)).values())
    assert [splits.count(name) for name in ("train", "select", "test")] == [11, 1, 2]
    assert _splits(catalogue(config)) == _splits(catalogue(config))
    assert _histogram(config, tmp_path / "ready") == (32 * 32 - 256, 256)


def test_fgfd(tmp_path: Path, write_raster: WriteRaster) -> None:
    for split in ("train", "val", "test"):
        write_raster(tmp_path / split / "images" / "f.tif", IMAGE[:3])
        write_raster(tmp_path / split / "labels" / "f.png", MASK // 255, crs=None)
    config = _config("fgfd", tmp_path)
    assert sorted(map(str, _splits(catalogue(config)).values())) == ["select", "test", "train"]
    assert _histogram(config, tmp_path / "ready") == (32 * 32 - 256, 256)


def test_a_folder_that_is_not_the_data_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image of whu_building found; expected \{train,val,test\}"):
        catalogue(_config("whu_building", tmp_path))
    with pytest.raises(UserError, match="expected the unpacked potsdam data set"):
        catalogue(_config("potsdam", tmp_path / "none"))


def test_a_missing_label_and_a_strange_tile_are_named(tmp_path: Path, write_raster: WriteRaster) -> None:
    image = tmp_path / "2_Ortho_RGB" / "top_potsdam_2_11_RGB.tif"
    write_raster(image, IMAGE[:3])
    with pytest.raises(UserError, match=r"2_11_RGB.tif has no label: expected .*top_potsdam_2_11_label.tif"):
        catalogue(_config("potsdam", tmp_path))
    image.rename(image.with_name("top_potsdam_9_99_RGB.tif"))
    with pytest.raises(UserError, match="tile 9_99 is not one of the benchmark's"):
        catalogue(_config("potsdam", tmp_path))


def test_labels_configured_wrongly_are_refused(tmp_path: Path) -> None:
    config = _config("whu_building", tmp_path)
    with pytest.raises(UserError, match="expected kind: index, nonzero: true, ignore: "):
        catalogue(config.model_copy(update={"label": LabelConfig(nonzero=True)}))
    with pytest.raises(UserError, match="has 2 classes, found 6"):
        catalogue(config.model_copy(update={"classes": ISPRS_CLASSES}))
    potsdam = _config("potsdam", tmp_path)
    with pytest.raises(UserError, match="stores labels as colours, found index"):
        catalogue(potsdam.model_copy(update={"label": LabelConfig()}))
