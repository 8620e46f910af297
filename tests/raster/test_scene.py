"""Reading: bands, validity, rectangles, resampling, and every kind of broken file."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile_files import TAGS, patched

from idgbr.errors import UserError
from idgbr.raster.cog import BandSpec, CogWriter
from idgbr.raster.gdal import gdal_env, open_quietly
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene
from idgbr.raster.windows import plan_windows

Make = Callable[..., str]


def test_reads_beyond_the_edge_are_zero_and_invalid(make: Make, pixels: np.ndarray) -> None:
    scene = pickle.loads(pickle.dumps(Scene(make("a.tif", pixels))))
    image, valid = scene.read(Window(60, -8, 20, 16))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[:, :10, 8:], pixels[:, 60:, :8])
    assert valid[:10, 8:].all()
    assert valid.sum() == 80
    assert image[:, ~valid].sum() == 0


def test_a_block_that_was_read_stays_in_memory(make: Make) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 1024, 1024), dtype=np.uint8)
    path = make("a.tif", pixels, compress="DEFLATE")
    with gdal_env(path), open_quietly(path) as file:
        file.read()
        Path(path).write_bytes(b"")
        np.testing.assert_array_equal(file.read(), pixels)


def test_a_rectangle_shows_nothing_outside_of_itself(make: Make, pixels: np.ndarray) -> None:
    scene = Scene(make("a.tif", pixels)).crop(Window(10, 20, 30, 40))
    part = scene.crop(Window(5, 5, 10, 10))
    assert scene.origin == (10, 20)
    assert part.origin == (15, 25)
    np.testing.assert_array_equal(part.read(Window(0, 0, 10, 10))[0], pixels[:, 15:25, 25:35])
    assert scene.read(Window(-2, 0, 4, 40))[1].sum() == 80
    assert scene.grid().affine @ (0, 0) == (500010.0, 99995.0)


def test_bands_by_index_and_name(make: Make, pixels: np.ndarray) -> None:
    path = make("a.tif", pixels, names=("nir", "Red", "green"))
    window = Window(0, 0, 70, 90)
    np.testing.assert_array_equal(Scene(path, bands=("red", 1)).read(window)[0], pixels[[1, 0]])
    with pytest.raises(UserError, match=r"no band 'swir'.*1 \(nir\), 2 \(Red\)"):
        Scene(path, bands=("swir",)).check()
    with pytest.raises(UserError, match="no band 4"):
        Scene(path, bands=(4,)).check()


def test_nodata_alpha_and_nan_are_invalid(make: Make, pixels: np.ndarray) -> None:
    window = Window(0, 0, 70, 90)
    pixels[:, :5] = 0
    pixels[0, 10] = 0
    for scene in (Scene(make("a.tif", pixels, nodata=0)), Scene(make("b.tif", pixels), nodata=0)):
        valid = scene.read(window)[1]
        assert not valid[:5].any()
        assert valid[5:].all()
    alpha = np.full((1, 70, 90), 255, np.uint8)
    alpha[0, :, :9] = 0
    path = make("c.tif", np.concatenate([pixels, alpha]), photometric="RGB", alpha="yes")
    image, valid = Scene(path).read(window)
    assert len(image) == 3
    np.testing.assert_array_equal(valid, alpha[0] > 0)
    real = pixels.astype(np.float32)
    real[1, 20, 20], real[2, 30, 30] = np.nan, np.inf
    image, valid = Scene(make("d.tif", real)).read(window)
    assert (~valid).sum() == 2
    assert np.isfinite(image).all()


def test_resampling_keeps_the_ground_and_the_mask(make: Make) -> None:
    ramp = np.broadcast_to(np.arange(1, 201, dtype=np.float32), (1, 100, 200)).copy()
    ramp[:, :50] = -1
    for scene in (
        Scene(make("a.tif", ramp, nodata=-1), resample_to=1.0),
        Scene(make("b.tif", ramp, nodata=-1, crs=None, transform=None), gsd=0.5, resample_to=1.0),
    ):
        grid = scene.grid()
        assert (grid.height, grid.width) == (50, 100)
        image, valid = scene.read(Window(0, 0, 50, 100))
        assert not valid[:24].any()
        assert valid[26:].all()
        np.testing.assert_allclose(image[0, 40, 2:-2], np.arange(1.5, 200, 2)[2:-2], atol=0.01)
        part = scene.crop(Window(30, 10, 20, 20)).read(Window(0, 0, 20, 20))[0]
        np.testing.assert_array_equal(part, image[:, 30:, 10:30])
    with pytest.raises(UserError, match=r"data\.gsd"):
        Scene(make("c.tif", ramp, crs=None, transform=None), resample_to=1.0).check()


def test_profile_tells_slow_files(make: Make, pixels: np.ndarray) -> None:
    profile = Scene(make("a.tif", pixels)).profile()
    assert (profile.dtype, profile.height, profile.width, profile.gsd) == ("uint8", 70, 90, 0.5)
    assert not profile.slow
    big = np.zeros((3, 100, 90), np.uint8)
    striped = Scene(make("b.tif", big, blockysize=1)).profile()
    tiled = Scene(make("c.tif", big, tiled=True, blockxsize=32, blockysize=32)).profile()
    assert not striped.tiled
    assert tiled.tiled


def test_a_rewritten_file_is_opened_anew(make: Make, pixels: np.ndarray) -> None:
    path = make("a.tif", pixels)
    Scene(path).read(Window(0, 0, 4, 4))
    make("a.tif", pixels[:, :50])
    assert Scene(path).grid().height == 50


def test_a_loop_over_windows_looks_at_a_file_once(make: Make, pixels: np.ndarray) -> None:
    path = make("a.tif", pixels)
    with gdal_env(path):
        Scene(path).read(Window(0, 0, 4, 4))
        make("a.tif", pixels[:, :50])
        assert Scene(path).grid().height == 70
    assert Scene(path).grid().height == 50


def test_windows_that_are_valid_throughout_share_their_validity(make: Make, pixels: np.ndarray) -> None:
    scene = Scene(make("a.tif", pixels))
    first, second = scene.read(Window(0, 0, 4, 4))[1], scene.read(Window(8, 8, 4, 4))[1]
    assert first.shape == (4, 4)
    assert first.all()
    assert np.shares_memory(first, second)
    with pytest.raises(ValueError, match="read-only"):
        second[0, 0] = False


def test_bad_files_are_refused(make: Make, pixels: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Scene(str(tmp_path / "missing.tif")).check()
    text = tmp_path / "text.tif"
    text.write_text("certainly not pixels\n" * 50)
    with pytest.raises(UserError, match=r"text\.tif: cannot be opened as a raster"):
        Scene(str(text)).check()
    with pytest.raises(UserError, match="folder"):
        Scene(str(tmp_path)).check()
    whole = Path(make("whole.tif", pixels, compress="deflate", tiled=True, blockxsize=16, blockysize=16))
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    with pytest.raises(UserError, match=r"cut\.tif: cannot"):
        Scene(str(cut)).check()
    with pytest.raises(UserError, match="not one valid pixel"):
        Scene(make("empty.tif", np.zeros_like(pixels), nodata=0)).check()
    with pytest.raises(UserError, match="not one valid pixel"):
        Scene(make("nan.tif", np.full((1, 20, 20), np.nan, np.float32))).check()
    lonely = np.zeros((1, 300, 300), np.uint8)
    lonely[0, 100, 100] = 1
    Scene(make("lonely.tif", lonely, nodata=0)).check()


def test_every_odd_file_ends_as_a_map_or_a_message(data_dir: Path, tmp_path: Path) -> None:
    ends = {}
    for path in sorted((data_dir / "geotiff_misc").rglob("*.tif")):
        scene, out = Scene(str(path)), tmp_path / path.name
        try:
            scene.check()
            grid = scene.grid()
            parts = [scene.read(w)[1].mean() for w in plan_windows(grid.height, grid.width, 512, 64)]
            with CogWriter(out, grid, [BandSpec("class")], {0: (1, 2, 3)}) as writer:
                for row in range(0, grid.height, 300):
                    valid = scene.read(Window(row, 0, min(300, grid.height - row), grid.width))[1]
                    writer.write(row, np.where(valid, 0, 255).astype(np.uint8)[None])
            made = Scene(str(out))
            assert made.grid().same_as(grid) == []
            assert any(parts)
            ends[path.name] = "map"
        except UserError as error:
            ends[path.name] = "message" if str(path) in str(error) and not out.exists() else f"bad message: {error}"
        out.unlink(missing_ok=True)
        assert not list(tmp_path.iterdir())
    assert ends["all-nodata.tif"] == ends["corrupt.tif"] == "message"
    assert list(ends.values()).count("map") > 35
    assert set(ends.values()) == {"map", "message"}


def test_a_damaged_file_leaves_the_next_one_alone(make: Make, pixels: np.ndarray, tmp_path: Path) -> None:
    whole = Path(make("whole.tif", pixels, compress="deflate", tiled=True, blockxsize=16, blockysize=16))
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cut\.tif"):
        Scene(str(cut)).check()
    assert Scene(str(whole)).profile().bands == ("red", "green", "blue")
    assert Scene(str(cut)).profile().bands == ("red", "green", "blue")


def test_headers_that_cannot_be_true_are_refused(make: Make, pixels: np.ndarray, tmp_path: Path) -> None:
    vrt = '<VRTDataset rasterXSize="9" rasterYSize="9"><GeoTransform>{}</GeoTransform>{}</VRTDataset>'
    band = '<VRTRasterBand dataType="Byte" band="{}"/>'
    for name, text, expected in (
        ("flat", vrt.format("5, 1, 1, 9, 1, 1", band.format(1)), "onto a line or a point"),
        (
            "many",
            vrt.format("5, 1, 0, 9, 0, -1", "".join(band.format(i) for i in range(1, 4200))),
            "at most 4096 bands",
        ),
    ):
        path = tmp_path / f"{name}.vrt"
        path.write_text(text)
        with pytest.raises(UserError, match=expected):
            Scene(str(path)).check()
    whole = Path(make("whole.tif", pixels[:1], tiled=True, blockxsize=16, blockysize=16)).read_bytes()
    for name, tags, size, expected in (
        ("index", ("ImageWidth", "ImageLength"), 60000, "too few for their index"),
        ("block", ("ImageWidth", "ImageLength", "TileWidth", "TileLength"), 30000, "at most 512 MB"),
    ):
        spoilt = whole
        for tag in tags:
            spoilt = patched(spoilt, TAGS[tag], size) or b""
        (tmp_path / f"{name}.tif").write_bytes(spoilt)
        with pytest.raises(UserError, match=expected):
            Scene(str(tmp_path / f"{name}.tif")).check()
