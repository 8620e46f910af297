from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from idgbr.config.data import ClassSpec, DataConfig, FolderSource, JsonlSource, LabelConfig, SplitConfig
from idgbr.datasets.catalogue import catalogue, check_gsd
from idgbr.datasets.jsonl import write_lists
from idgbr.datasets.labelled import unique_ids
from idgbr.datasets.prepare import prepare_region
from idgbr.datasets.splits import Region, split_regions
from idgbr.errors import UserError
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene

Make = Callable[..., DataConfig]
WriteRaster = Callable[..., str]
BINARY = [ClassSpec(name="background", colour="#000000"), ClassSpec(name="building", colour="#dc2828")]


def test_folders_pair_by_name(labelled_folder: Make, tmp_path: Path) -> None:
    scenes = catalogue(labelled_folder(count=3))
    assert [scene.id for scene in scenes] == ["s0_image", "s1_image", "s2_image"]
    assert [Path(scene.label).name for scene in scenes] == ["s0_label.tif", "s1_label.tif", "s2_label.tif"]


def test_files_without_partner_are_named(labelled_folder: Make, tmp_path: Path) -> None:
    config = labelled_folder(count=3)
    (tmp_path / "labels" / "s1_label.tif").rename(tmp_path / "labels" / "s7_label.tif")
    with pytest.raises(UserError, match=r"2 file\(s\) without a partner") as caught:
        catalogue(config)
    assert "s1_image.tif (no label with key 's1')" in str(caught.value)
    assert "s7_label.tif (no image with key 's7')" in str(caught.value)


@pytest.mark.parametrize(
    ("pair", "words"),
    [("(", "no regular expression"), ("s", "has no group"), ("(x.+)", "does not match"), ("^(s)", "same key 's'")],
)
def test_a_useless_pattern_is_refused(labelled_folder: Make, pair: str, words: str) -> None:
    config = labelled_folder(count=2)
    source = config.source.model_copy(update={"pair": pair})
    with pytest.raises(UserError, match=words):
        catalogue(config.model_copy(update={"source": source}))


def test_an_empty_glob_and_missing_labels_are_refused(labelled_folder: Make, tmp_path: Path) -> None:
    config = labelled_folder(count=2)
    for source, words in (
        (FolderSource(images=[str(tmp_path / "*.jp2")], labels=[str(tmp_path / "labels")]), "no file matches"),
        (FolderSource(images=[str(tmp_path / "images")]), "data.source.labels is empty"),
    ):
        with pytest.raises(UserError, match=words):
            catalogue(config.model_copy(update={"source": source}))


def test_a_text_file_named_tif_is_refused(labelled_folder: Make, tmp_path: Path) -> None:
    config = labelled_folder(count=2)
    (tmp_path / "images" / "s1_image.tif").write_text("not pixels")
    with pytest.raises(UserError, match=r"s1_image.tif"):
        catalogue(config)


def test_scale_mismatch_is_refused_or_resampled(labelled_folder: Make) -> None:
    config = labelled_folder(count=2)
    with pytest.raises(UserError, match=r"s0_image.tif: ground sample distance 0.5 m, expected about 1 m"):
        catalogue(config.model_copy(update={"gsd": 1.0}))
    scenes = catalogue(config.model_copy(update={"gsd": 1.0, "gsd_mismatch": "resample"}))
    assert [scene.image.grid().height for scene in scenes] == [48, 48]
    assert check_gsd(0.7, 0.5, config, "x") is None
    assert check_gsd(None, 0.5, config, "x") is None


def test_ids_take_parents_only_where_needed() -> None:
    assert unique_ids(["a/x.tif", "a/y.tif"]) == ["x", "y"]
    assert unique_ids(["d/train/1.tif", "d/val/1.tif"]) == ["train_1", "val_1"]
    assert unique_ids(["s3://b/my tile.tif"]) == ["my_tile"]


@pytest.fixture
def chips(tmp_path: Path, write_raster: WriteRaster) -> Path:
    rng = np.random.default_rng(0)
    for number in range(10):
        write_raster(
            tmp_path / "chips/images" / f"c_{number:02d}.png", rng.integers(1, 255, (3, 40, 40), np.uint8), crs=None
        )
        write_raster(
            tmp_path / "chips/masks" / f"c_{number:02d}.png",
            (rng.integers(0, 2, (40, 40)) * 255).astype(np.uint8),
            crs=None,
        )
    return tmp_path / "chips"


def _jsonl(files: dict[str, list[str]], root: str = "") -> DataConfig:
    return DataConfig(
        name="chips",
        source=JsonlSource(files=files, root=root),
        classes=BINARY,
        gsd=0.075,
        label=LabelConfig(nonzero=True, ignore=[]),
        split=SplitConfig(by="listed"),
    )


def _write(chips: Path, **changes: object) -> dict[str, Path]:
    images, labels = (sorted(map(str, (chips / name).glob("*.png"))) for name in ("images", "masks"))
    arguments: dict = {"fractions": {"train": 0.6, "select": 0.2, "test": 0.2}, "seed": 1, "root": chips}
    return write_lists(images, labels, chips.parent / "lists", **(arguments | changes))


def test_written_lists_are_read_back(chips: Path, tmp_path: Path) -> None:
    written = _write(chips)
    row = json.loads(written["train"].read_text().splitlines()[0])
    assert set(row) == {"image", "label_index", "text"}
    assert row["image"].startswith("images/c_")
    config = _jsonl({split: [str(path)] for split, path in written.items()}, str(chips))
    regions = split_regions(catalogue(config), config.split)
    assert [sum(r.split == s for r in regions) for s in ("train", "select", "test")] == [6, 2, 2]
    prepared = prepare_region(regions[0], config, str(tmp_path / "ready"))
    assert sum(prepared.histogram) == 1600
    assert min(prepared.histogram) > 600
    assert prepared.image.uri == regions[0].scene.image.uri


def test_lists_do_not_depend_on_file_order(chips: Path, tmp_path: Path) -> None:
    first = {split: path.read_text() for split, path in _write(chips).items()}
    images, labels = (sorted(map(str, (chips / name).glob("*.png"))) for name in ("images", "masks"))
    again = write_lists(
        images[::-1], labels, tmp_path / "other", {"train": 0.6, "select": 0.2, "test": 0.2}, 1, root=chips
    )
    assert {split: path.read_text() for split, path in again.items()} == first
    other = _write(chips, seed=2)
    assert other["train"].read_text() != first["train"]


def test_every_split_with_a_share_gets_a_chip(chips: Path) -> None:
    written = _write(chips, fractions={"train": 0.98, "select": 0.01, "test": 0.01})
    assert [len(path.read_text().splitlines()) for path in written.values()] == [8, 1, 1]
    with pytest.raises(UserError, match="add up to 1"):
        _write(chips, fractions={"train": 0.5})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"image": "images/c_00.png"}', r"train.jsonl:2: key 'label_index' is missing.*keys found: image"),
        ("{oops", r"train.jsonl:2: no valid JSON"),
        ("[1]", r"train.jsonl:2: found list"),
        ('{"image": "", "label_index": "x"}', r"train.jsonl:2: key 'image' is missing"),
    ],
)
def test_a_bad_line_is_named(chips: Path, tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"image": "images/c_00.png", "label_index": "masks/c_00.png"}\n' + line + "\n")
    with pytest.raises(UserError, match=words):
        catalogue(_jsonl({"train": [str(path)]}, str(chips)))


def test_missing_and_empty_lists_and_doubled_chips_are_refused(chips: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no list matches"):
        catalogue(_jsonl({"train": [str(tmp_path / "none*.jsonl")]}))
    path = tmp_path / "train.jsonl"
    path.write_text("\n")
    with pytest.raises(UserError, match="the list is empty"):
        catalogue(_jsonl({"train": [str(path)]}))
    path.write_text('{"image": "images/c_00.png", "label_index": "masks/c_00.png"}\n')
    with pytest.raises(UserError, match=r"c_00.png is listed 2 times \(test, train\)"):
        catalogue(_jsonl({"train": [str(path)], "test": [str(path)]}, str(chips)))


def test_a_rough_map_becomes_the_coarse_map(chips: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(
        '{"image": "images/c_00.png", "label_index": "masks/c_00.png", '
        '"rough_label_index": "masks/c_01.png", "text": ""}\n'
    )
    config = _jsonl({"train": [str(path)]}, str(chips))
    scene = catalogue(config)[0]
    prepared = prepare_region(Region("c", "train", scene, Window(0, 0, 40, 40)), config, str(tmp_path / "ready"))
    assert prepared.coarse is not None
    window = Window(0, 0, 40, 40)
    rough, _ = Scene(str(chips / "masks" / "c_01.png")).read(window)
    assert (Scene(prepared.coarse).read(window)[0] == (rough > 0)).all()
