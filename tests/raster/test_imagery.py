"""Doubts about imagery, and how files are read where a key settles them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from idgbr.errors import UserError
from idgbr.raster.alpha import looks_like_mask
from idgbr.raster.bands import choose_bands
from idgbr.raster.crs import metres_per_unit
from idgbr.raster.findings import Finding
from idgbr.raster.grid import IDENTITY, Grid, Window
from idgbr.raster.imagery import image_findings, settle
from idgbr.raster.missing import parts_of
from idgbr.raster.opening import Reading
from idgbr.raster.scene import Scene
from idgbr.raster.values import BandMaps, ValueRange, compare_colours, compare_pixels, compare_ranges, range_of
from idgbr.raster.vectors import read_polygons

Make = Callable[..., str]
LOCAL = 'LOCAL_CS["Site grid",UNIT["{}",{}],AXIS["X",EAST],AXIS["Y",NORTH]]'


@pytest.mark.parametrize(
    ("name", "factor", "gsd"), [("metre", 1, 2.0), ("US survey foot", 0.3048006, 0.6096012), ("unknown", 1, None)]
)
def test_a_local_crs_has_its_own_unit_or_none(name: str, factor: float, gsd: float | None) -> None:
    grid = Grid(rasterio.crs.CRS.from_wkt(LOCAL.format(name, factor)).to_wkt(), (2.0, 0, 0, 0, -2.0, 50), 64, 64)
    assert grid.gsd == pytest.approx(gsd) if gsd else grid.gsd is None


def test_grads_are_no_degrees() -> None:
    wkt = rasterio.crs.CRS.from_user_input("EPSG:4807").to_wkt()
    side = 1e-5  # a grad of latitude is 100 km, one of longitude 0.66 of that at 54 grads
    grid = Grid(wkt, (side, 0, 2.0, 0, -side, 54.0), 64, 64)
    assert grid.gsd == pytest.approx(np.sqrt(np.cos(54 * np.pi / 200)), rel=0.01)
    assert metres_per_unit(wkt) is None


def test_a_crs_without_a_transform_says_nothing_of_scale() -> None:
    assert Grid(rasterio.crs.CRS.from_epsg(32633).to_wkt(), IDENTITY, 64, 64).gsd is None


@pytest.mark.parametrize(
    ("values", "mask"),
    [
        ([0, 255], True),
        ([255], True),
        ([0, 1], True),
        ([0, 65535], True),
        ([*[0] * 60, *range(1, 255, 60), *[255] * 60], True),
        (list(range(256)), False),
        ([*[0] * 60, *range(60, 180)], False),
    ],
)
def test_masks_have_two_values_and_a_thin_ramp(values: list[int], mask: bool) -> None:
    assert looks_like_mask([np.array(values)]) is mask


def test_alpha_and_mask_both_count(make: Make, pixels: np.ndarray) -> None:
    alpha = np.full((1, 70, 90), 255, np.uint8)
    alpha[0, :, :9] = 0
    path = make("a.tif", np.concatenate([pixels, alpha]), photometric="RGB", alpha="yes")
    mask = np.ones((70, 90), bool)
    mask[:9] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    np.testing.assert_array_equal(Scene(path).read(Window(0, 0, 70, 90))[1], mask & (alpha[0] > 0))


@pytest.mark.parametrize("resample_to", [None, 1.0])
@pytest.mark.parametrize(("alpha", "bands"), [("auto", 4), ("band", 4), ("mask", 3), ("ignore", 3)])
def test_near_infrared_that_is_tagged_alpha(
    make: Make, pixels: np.ndarray, alpha: str, bands: int, resample_to: float | None
) -> None:
    infrared = pixels[:1] // 2 + 60
    infrared[:, 40:] = 0
    path = make("a.tif", np.concatenate([pixels, infrared]), photometric="RGB", alpha="yes")
    scene = Scene(path, reading=Reading(alpha=alpha), resample_to=resample_to)  # type: ignore[arg-type]
    values, valid = scene.read(scene.grid().window)
    assert len(values) == bands
    assert valid[-5:].any() == (alpha != "mask") and valid[:5].all()
    assert (values[0, -5:] > 0).any() == (alpha != "mask" or resample_to is None)


def test_a_tile_index_whose_tile_is_gone(make: Make, pixels: np.ndarray, tmp_path: Path) -> None:
    for i in range(3):
        make(f"t{i}.tif", pixels, col=90 * i)
    boxes = [shapely.box(500000 + 45 * i, 100000 - 35, 500045 + 45 * i, 100000) for i in range(3)]
    frame = gpd.GeoDataFrame({"location": [f"t{i}.tif" for i in range(3)]}, geometry=boxes, crs="EPSG:32636")
    frame.to_file(tmp_path / "index.gti.gpkg", driver="GPKG")
    (tmp_path / "t1.tif").unlink()
    scene = Scene(str(tmp_path / "index.gti.gpkg"), bands=(1, 2, 3))
    values, valid = scene.read(Window(0, 0, 70, 270))
    for col in (0, 180):  # GDAL alone leaves what comes after the lost tile blank
        np.testing.assert_array_equal(values[:, :, col : col + 90], pixels)
    assert valid[:, :90].all() and not valid[:, 90:180].any() and valid[:, 180:].all()
    assert "t1.tif" in scene.unread(Window(0, 60, 10, 40)) and not scene.unread(Window(0, 180, 70, 90))
    (finding,) = image_findings(scene, "data.")
    assert finding.severity == "error" and "33.33%" in finding.found


def _vrt(path: Path, bands: list[list[str]], width: int) -> str:
    """A VRT of files of 90 x 70 px side by side: per band their names."""
    text = ""
    for number, files in enumerate(bands, 1):
        sources = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>'
            f'<SrcRect xOff="0" yOff="0" xSize="90" ySize="70"/><DstRect xOff="{90 * i}" yOff="0" '
            'xSize="90" ySize="70"/></SimpleSource>'
            for i, name in enumerate(files)
        )
        text += f'<VRTRasterBand dataType="Byte" band="{number}">{sources}</VRTRasterBand>'
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="70"><SRS>EPSG:32636</SRS>'
        f"<GeoTransform>500000, 0.5, 0, 100000, 0, -0.5</GeoTransform>{text}</VRTDataset>"
    )
    return str(path)


def test_parts_of_parts_and_of_other_bands(make: Make, pixels: np.ndarray, tmp_path: Path) -> None:
    """A part that is gone is found inside of a nested VRT; one of a band that nobody reads is nobody's loss."""
    make("t.tif", pixels)
    inner = _vrt(tmp_path / "inner.vrt", [["t.tif", "gone.tif"]], 180)
    outer = Path(inner).read_text().replace("gone.tif", "t.tif").replace("t.tif", "inner.vrt", 1)
    (tmp_path / "outer.vrt").write_text(outer.replace('xSize="90"', 'xSize="180"'))
    valid = Scene(str(tmp_path / "outer.vrt")).read(Window(0, 0, 70, 180))[1]
    assert valid[:, :90].all()
    assert [part.path for part in parts_of(str(tmp_path / "outer.vrt")).missing([1])] == [str(tmp_path / "gone.tif")]
    apart = _vrt(tmp_path / "apart.vrt", [["t.tif"], ["gone.tif"]], 90)
    assert Scene(apart, bands=(1,)).read(Window(0, 0, 70, 90))[1].all()
    assert not image_findings(Scene(apart, bands=(1,)), "--")
    assert not Scene(apart, bands=(1, 2)).read(Window(0, 0, 70, 90))[1].any()


def test_nodata_with_few_digits(make: Make) -> None:
    pixels = np.ones((1, 70, 90), np.float32)
    pixels[0, :10] = np.finfo(np.float32).min
    path = make("a.tif", pixels, nodata=-3.4e38)
    np.testing.assert_array_equal(Scene(path).read(Window(0, 0, 70, 90))[1], pixels[0] == 1)


def test_bands_by_name_where_files_have_none(make: Make, pixels: np.ndarray) -> None:
    names = ("red", "green", "blue")
    plain = make("a.tif", pixels, photometric="MINISBLACK")
    other = make("b.tif", pixels, photometric="MINISBLACK", names=("x", "y", "z"))
    chosen, note = choose_bands(Scene(plain).source(), names, (), "--bands-from")
    assert chosen == (1, 2, 3) and note is not None and "in the file's order as red, green, blue" in note.message()
    with pytest.raises(UserError, match=r"no band 'red'.*--bands-from"):
        choose_bands(Scene(other).source(), names, (), "--bands-from")
    assert choose_bands(Scene(other).source(), names, ("z", "y", "x"), "--bands-from") == (("z", "y", "x"), None)


def _range(low: float, high: float, dtype: str = "uint8", **more: tuple[str, ...]) -> ValueRange:
    found = range_of([np.linspace(low, high, 1000)[None].repeat(3, 0)], dtype, **more)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("found", "severity"),
    [
        (_range(20, 200), None),
        (_range(90, 110), None),  # a meadow
        (_range(80, 255), "warning"),
        (_range(320, 3200, "uint16"), "error"),
        (_range(0, 1, "float32"), "error"),
    ],
)
def test_ranges_are_compared(found: ValueRange, severity: str | None) -> None:
    for learnt in (_range(20, 200), ValueRange.assumed([110] * 3, [52] * 3)):
        finding = compare_ranges("a.tif", found, learnt, "refuse", "--value-range")
        assert (finding and finding.severity) == severity
        if severity == "error":
            softer = [compare_ranges("a.tif", found, learnt, on, "k") for on in ("match", "accept")]
            assert all(one is not None and one.severity == "warning" for one in softer)
    pixels = np.full((3, 8, 8), 5000, np.uint16)
    assert "5000" in str(compare_pixels("image", pixels, np.ones((8, 8), bool), _range(20, 200)))


def test_quantiles_are_mapped() -> None:
    maps = BandMaps.between(_range(320, 3200, "uint16"), _range(20, 200))
    pixels = np.linspace(320, 3200, 64).reshape(1, 8, 8).repeat(3, 0).astype(np.uint16)
    np.testing.assert_allclose(maps.apply(pixels), pixels / 16, atol=1.1)


@pytest.mark.parametrize(
    ("shown", "severity"),
    [
        (("red", "green", "blue"), None),
        ((), None),
        (("blue", "green", "red"), "error"),
        (("nir", "red", "green"), "warning"),
        (("cyan", "magenta", "yellow"), "error"),
    ],
)
def test_what_bands_show_is_compared(shown: tuple[str, ...], severity: str | None) -> None:
    finding = compare_colours("a.tif", shown, _range(0, 1, colours=("red", "green", "blue")), "--bands-from")
    assert (finding and finding.severity) == severity


def test_many_alike_are_told_in_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    settle(Finding(f"{i}.tif", "is odd", "data.alpha", "look at it", "warning") for i in range(50))
    printed = capsys.readouterr().out
    assert printed.count("is odd") == 3 and "and 47 more files" in printed
    with pytest.raises(UserError, match=r"(?s)a\.tif: is bad.*b\.tif: is bad"):
        settle(Finding(name, "is bad", "", "", "error") for name in ("a.tif", "b.tif"))


def test_a_crs_that_pyproj_s_registry_lacks(make: Make, pixels: np.ndarray, tmp_path: Path) -> None:
    """Polygons in it are read with rasterio's definition."""
    image = Scene(make("a.tif", pixels, crs="EPSG:10792"))
    frame = gpd.GeoDataFrame(
        {"name": ["x"]}, geometry=[shapely.box(500000, 99970, 500030, 100000)], crs=image.grid().crs
    )
    frame.to_file(tmp_path / "a.gpkg", driver="GPKG")
    found = read_polygons(str(tmp_path / "a.gpkg"), image.grid())
    assert found.total_bounds.tolist() == [500000, 99970, 500030, 100000] and list(found["name"]) == ["x"]
