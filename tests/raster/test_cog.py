"""Writing maps: what a reader needs is there, nothing half-written is, and memory does not grow with the width."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from idgbr.errors import UserError
from idgbr.raster.cog import BandSpec, CogWriter
from idgbr.raster.grid import Grid
from idgbr.raster.scene import Scene

UTM = rasterio.crs.CRS.from_epsg(32636).to_wkt()
COLOURS = {0: (255, 255, 255), 1: (200, 30, 40)}


def _grid(height: int, width: int) -> Grid:
    return Grid(UTM, (0.5, 0.0, 500000.0, 0.0, -0.5, 100000.0), height, width)


def _write(path: Path, ids: np.ndarray, fail_at: int = -1) -> None:
    with CogWriter(path, _grid(*ids.shape[1:]), [BandSpec("class")], COLOURS, {"classes": "a,b"}) as writer:
        for row in range(0, ids.shape[1], 37):
            if row == fail_at:
                raise ZeroDivisionError
            writer.write(row, ids[:, row : row + 37])


def test_map_is_a_valid_cog_with_everything_in_it(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 2, (1, 1300, 1100), dtype=np.uint8)
    ids[:, :200, :300] = 255
    _write(tmp_path / "maps" / "map.tif", ids)
    assert [p.name for p in (tmp_path / "maps").iterdir()] == ["map.tif"]
    with rasterio.open(tmp_path / "maps" / "map.tif") as cog:
        np.testing.assert_array_equal(cog.read(), ids)
        assert cog.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert cog.block_shapes == [(512, 512)]
        assert cog.overviews(1) == [2, 4]
        assert (cog.nodata, cog.crs.to_epsg(), cog.transform[2]) == (255, 32636, 500000)
        assert cog.tags()["classes"] == "a,b"
        assert cog.colormap(1)[1][:3] == COLOURS[1]
        assert cog.descriptions == ("class",)
        assert (cog.dataset_mask()[:200, :300] == 0).all()
        # Overviews hold ids that occur, nothing in between, and come before the full image in the file.
        assert set(np.unique(cog.read(1, out_shape=(325, 275)))) <= {0, 1, 255}
        offsets = [
            int(cog.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", 1, ovr)) for x, y, ovr in ((0, 0, 1), (0, 0, 0))
        ] + [int(cog.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", 1))]
        assert offsets == sorted(offsets)


def test_several_bands(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).integers(0, 255, (3, 60, 70), dtype=np.uint8)
    with CogWriter(tmp_path / "m.tif", _grid(60, 70), [BandSpec(n) for n in "abc"], COLOURS) as writer:
        writer.write(0, bands)
    with rasterio.open(tmp_path / "m.tif") as cog:
        np.testing.assert_array_equal(cog.read(), bands)
        assert cog.descriptions == ("a", "b", "c")


def test_a_failure_leaves_the_earlier_map_alone(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    _write(path, np.zeros((1, 50, 50), np.uint8))
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        _write(path, np.ones((1, 50, 50), np.uint8), fail_at=37)
    with pytest.raises(ValueError, match="20 of 50"), CogWriter(path, _grid(50, 50), [BandSpec("class")]) as writer:
        writer.write(0, np.ones((1, 20, 50), np.uint8))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_map_goes_on_after_its_rows(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 2, (2, 600, 400), dtype=np.uint8)
    path, work = tmp_path / "map.tif", str(tmp_path / "work")
    arguments = path, _grid(600, 400), [BandSpec("a"), BandSpec("b")], None, None, work
    with pytest.raises(ValueError, match="100 of 600"), CogWriter(*arguments) as writer:
        writer.write(0, ids[:, :100])
    assert not path.exists()
    with (tmp_path / "work" / "rows").open("ab") as file:
        file.write(b"half a row")
    again = CogWriter(*arguments)
    assert again.rows == 100
    with again as writer:
        with pytest.raises(UserError, match="by another job"), CogWriter(*arguments):
            pass
        writer.write(100, ids[:, 100:])
    with rasterio.open(path) as cog:
        np.testing.assert_array_equal(cog.read(), ids)
    assert list(tmp_path.iterdir()) == [path]


_FULL_DISK = """
import resource, sys, numpy as np
from idgbr.errors import UserError
from idgbr.raster.cog import BandSpec, CogWriter
from idgbr.raster.grid import Grid
# Files of this process may not grow beyond the limit: to the program that is a full disk.
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
ids = np.random.default_rng(0).integers(0, 255, (1, 1024, 1024), dtype=np.uint8)
try:
    with CogWriter(sys.argv[1], Grid(None, (1, 0, 0, 0, 1, 0), 1024, 1024), [BandSpec("class")]) as writer:
        for row in range(0, 1024, 64):
            writer.write(row, ids[:, row : row + 64])
except UserError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize("limit", [300_000, 1_060_000, 1_300_000])
def test_full_disk_is_a_message_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    """Full while rows come, while the COG is made (raw rows fit, the COG with overviews does not), and near its end."""
    path = tmp_path / "map.tif"
    done = subprocess.run([sys.executable, "-c", _FULL_DISK, str(path), str(limit)], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "map.tif: cannot be written" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_output_folder_that_cannot_be_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        _write(tmp_path / "file" / "map.tif", np.zeros((1, 5, 5), np.uint8))
    with pytest.raises(UserError, match="local"), CogWriter("s3://b/m.tif", _grid(5, 5), [BandSpec("class")]):
        pass


def test_a_scene_larger_than_the_disk_is_refused_at_once(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="MB free"),
        CogWriter(tmp_path / "m.tif", _grid(10**8, 10**8), [BandSpec("class")]),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


_MEMORY = """
import resource, sys, numpy as np
from idgbr.raster.blending import StripBlender
from idgbr.raster.cog import BandSpec, CogWriter
from idgbr.raster.grid import Grid
from idgbr.raster.windows import plan_windows
height, width = 640, int(sys.argv[2])
plan = plan_windows(height, width, 256, 64)
blender = StripBlender(height, width, 4, plan, 256, 64)
values = np.random.default_rng(0).random((4, 256, 256), dtype=np.float32)
ids = lambda strip: strip.argmax(axis=0, keepdims=True).astype(np.uint8)
with CogWriter(sys.argv[1], Grid(None, (1, 0, 0, 0, 1, 0), height, width), [BandSpec("class")]) as writer:
    for window in plan:
        for row, strip in blender.add(window, values):
            writer.write(row, ids(strip))
    for row, strip in blender.finish():
        writer.write(row, ids(strip))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_peak_memory_does_not_grow_with_the_width(tmp_path: Path) -> None:
    peak = {}
    for width in (4096, 16384):
        command = [sys.executable, "-c", _MEMORY, str(tmp_path / "map.tif"), str(width)]
        peak[width] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert peak[16384] <= 1.10 * peak[4096], peak
    assert Scene(str(tmp_path / "map.tif")).grid().width == 16384


@pytest.mark.parametrize("bands", [2, 3, 4, 5])
def test_no_band_of_a_map_is_taken_for_transparency(tmp_path: Path, bands: int) -> None:
    values = np.random.default_rng(0).integers(0, 3, (bands, 600, 300), dtype=np.uint8)
    with CogWriter(tmp_path / "map.tif", _grid(600, 300), [BandSpec(f"b{i}") for i in range(bands)]) as writer:
        writer.write(0, values)
    scene = Scene(str(tmp_path / "map.tif"))
    read, valid = scene.read(scene.grid().window)
    np.testing.assert_array_equal(read, values)
    assert valid.all()
