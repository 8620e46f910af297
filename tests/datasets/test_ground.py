"""Ground is recognised whatever crop, file or format it comes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from idgbr.config.data import ClassSpec, DataConfig, FolderSource
from idgbr.datasets.ground import TILE, shared, tile_hashes
from idgbr.datasets.labelled import LabelledScene
from idgbr.datasets.prepare import PreparedRegion, prepare_region
from idgbr.datasets.splits import Region
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene

SIZE = 4 * TILE
PIXELS = np.random.default_rng(0).integers(1, 255, (3, SIZE, SIZE), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray, **options: object) -> Path:
    profile = {"driver": "GTiff", "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    profile |= {"dtype": "uint8", "crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 0.5, 0.5)}
    with rasterio.open(path, "w", **profile | options) as out:
        out.write(pixels)
    return path


def region(folder: Path, path: Path, window: Window) -> PreparedRegion:
    label = write(folder / f"{path.stem}_label.tif", np.zeros((1, SIZE, SIZE), np.uint8))
    data = DataConfig(
        name="x",
        source=FolderSource(images=[]),
        classes=[ClassSpec(name="a", colour="#000000"), ClassSpec(name="b", colour="#ffffff")],
    )
    scene = LabelledScene(path.stem, Scene(str(path)), str(label))
    return prepare_region(Region(f"{path.stem}_{window.row}_{window.col}", "test", scene, window), data, str(folder))


def test_crops_of_a_scene_share_what_they_share(tmp_path: Path) -> None:
    path = write(tmp_path / "scene.tif", PIXELS)
    whole = tile_hashes(region(tmp_path, path, Window(0, 0, SIZE, SIZE)))
    assert len(whole) == 16
    # From an odd pixel on: its first row and column of tiles are cut.
    part = tile_hashes(region(tmp_path, path, Window(TILE - 5, 7, 2 * TILE + 5, SIZE - 7)))
    assert len(part) == 6
    assert shared(whole, part) == 6
    west = tile_hashes(region(tmp_path, path, Window(0, 0, SIZE, 2 * TILE)))
    east = tile_hashes(region(tmp_path, path, Window(0, 2 * TILE, SIZE, 2 * TILE)))
    assert shared(west, east) == 0
    assert shared(west, whole) == 8


def test_a_copy_under_another_name_and_format_is_the_same_ground(tmp_path: Path) -> None:
    one = region(tmp_path, write(tmp_path / "one.tif", PIXELS), Window(0, 0, SIZE, SIZE))
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    other = region(tmp_path, write(tmp_path / "two.tif", PIXELS, **options), Window(0, 0, SIZE, SIZE))
    assert tile_hashes(one) == tile_hashes(other)
    noisy = PIXELS.copy()
    noisy[:, ::TILE, ::TILE] += 1
    assert (
        shared(tile_hashes(one), tile_hashes(region(tmp_path, write(tmp_path / "three.tif", noisy), one.grid.window)))
        == 0
    )


def test_chips_count_as_one_and_nodata_as_none(tmp_path: Path) -> None:
    path = write(tmp_path / "scene.tif", PIXELS)
    assert len(tile_hashes(region(tmp_path, path, Window(3, 3, 40, 40)))) == 1
    blank = write(tmp_path / "blank.tif", np.zeros((3, SIZE, SIZE), np.uint8), nodata=0)
    assert tile_hashes(region(tmp_path, blank, Window(0, 0, SIZE, SIZE))) == []
