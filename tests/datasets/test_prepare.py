from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rich.console import Console

from idgbr import IGNORE
from idgbr.config.data import Box, DataConfig, FileRegion, FolderSource, LabelConfig, SplitConfig
from idgbr.datasets.catalogue import catalogue
from idgbr.datasets.fingerprint import fingerprint
from idgbr.datasets.label_checks import histogram_table, label_findings
from idgbr.datasets.lattice import boundary_mask, read_index_raster
from idgbr.datasets.normalisation import Normalisation
from idgbr.datasets.prepare import PreparedRegion, prepare_region
from idgbr.datasets.splits import split_regions
from idgbr.errors import UserError
from idgbr.raster.grid import Window

Make = Callable[..., DataConfig]
WriteRaster = Callable[..., str]
BLOCKS = SplitConfig(by="block", block=32)


def _prepare(config: DataConfig, folder: Path) -> list[PreparedRegion]:
    return [prepare_region(r, config, str(folder)) for r in split_regions(catalogue(config), config.split)]


def _label(region: PreparedRegion) -> np.ndarray:
    return read_index_raster(region.label, Window(0, 0, region.grid.height, region.grid.width))


def _truth(tmp_path: Path, region: PreparedRegion) -> np.ndarray:
    scene = region.id.split("_")[0]
    with rasterio.open(tmp_path / "labels" / f"{scene}_label.tif") as src:
        whole = src.read(1)
    row, col = region.origin
    return whole[row : row + region.grid.height, col : col + region.grid.width]


def test_prepared_index_label_is_the_original(labelled_folder: Make, tmp_path: Path) -> None:
    config = labelled_folder(split=BLOCKS, height=300)
    prepared = _prepare(config, tmp_path / "ready")
    for region in prepared:
        truth = _truth(tmp_path, region)
        assert (_label(region) == truth).all()
        assert region.histogram == tuple(np.bincount(truth.ravel(), minlength=3).tolist())
        assert region.boundary_pixels == boundary_mask(truth).sum()
        assert region.valid_pixels == truth.size
        with rasterio.open(region.label) as src:
            assert src.nodata == IGNORE
            assert src.profile["tiled"]
            assert src.transform.c == pytest.approx(region.grid.transform[2])


def test_boundaries_across_strips_count_once(labelled_folder: Make, tmp_path: Path) -> None:
    config = labelled_folder(count=3, height=600, width=64, split=SplitConfig(by="fraction"))
    for region in _prepare(config, tmp_path / "ready"):
        assert region.boundary_pixels == boundary_mask(_truth(tmp_path, region)).sum()


def test_prepared_colour_label_is_the_original(
    labelled_folder: Make, write_raster: WriteRaster, tmp_path: Path
) -> None:
    config = labelled_folder(split=BLOCKS, label=LabelConfig(kind="colour"))
    colours = np.array([tuple(bytes.fromhex(c.colour[1:])) for c in config.classes], np.uint8)
    truth = {}
    for path in sorted((tmp_path / "labels").glob("*.tif")):
        with rasterio.open(path) as src:
            truth[path.stem.split("_")[0]] = src.read(1)
        picture = colours[truth[path.stem.split("_")[0]]].transpose(2, 0, 1).copy()
        picture[:, :3, :3] = 0
        write_raster(path, picture, x=400000.0 + 1000 * int(path.stem[1]))
    for region in _prepare(config, tmp_path / "ready"):
        expected = truth[region.id.split("_")[0]].copy()
        expected[:3, :3] = IGNORE
        row, col = region.origin
        assert (_label(region) == expected[row : row + region.grid.height, col : col + region.grid.width]).all()


def test_prepared_vector_label_is_the_polygon(labelled_folder: Make, tmp_path: Path) -> None:
    config = labelled_folder(count=1, split=BLOCKS, label=LabelConfig(kind="vector", attribute="kind"))
    # Pixels 10..40 by 20..60 of an image at 0.5 m whose corner is (400000, 5800000).
    box = shapely.box(400000 + 10, 5800000 - 20, 400000 + 30, 5800000 - 5)
    vector = tmp_path / "houses.geojson"
    frame = geopandas.GeoDataFrame({"kind": ["building"]}, geometry=[box], crs="EPSG:32633")
    frame.to_crs("EPSG:4326").to_file(vector)
    config = config.model_copy(update={"source": FolderSource(images=[str(tmp_path / "images")], labels=[str(vector)])})
    expected = np.zeros((96, 80), np.uint8)
    expected[10:40, 20:60] = 1
    for region in _prepare(config, tmp_path / "ready"):
        row, col = region.origin
        assert (_label(region) == expected[row : row + region.grid.height, col : col + region.grid.width]).all()


def test_nodata_is_ignored_and_left_out_of_the_figures(labelled_folder: Make, tmp_path: Path) -> None:
    config = labelled_folder(count=1, split=BLOCKS, nodata=0)
    path = tmp_path / "images" / "s0_image.tif"
    with rasterio.open(path, "r+") as dst:
        pixels = dst.read()
        pixels[:, :, :24] = 0
        dst.write(pixels)
    prepared = _prepare(config, tmp_path / "ready")
    assert sum(region.valid_pixels for region in prepared) == 96 * 56
    assert sum(sum(region.histogram) for region in prepared) == 96 * 56
    assert sum(int((_label(region) == IGNORE).sum()) for region in prepared) == 96 * 24
    norm = Normalisation.from_stats(region.stats for region in prepared)
    np.testing.assert_allclose(norm.mean, pixels[:, :, 24:].mean(axis=(1, 2)))


def test_big_untiled_imagery_is_copied_with_its_mask(write_raster: WriteRaster, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 255, (4, 600, 700), dtype=np.uint8)
    image[3] = 255
    image[3, :50] = 0
    write_raster(tmp_path / "a.png", image, crs=None)
    write_raster(tmp_path / "a_mask.png", np.ones((600, 700), np.uint8), crs=None)
    config = DataConfig(
        name="toy",
        classes=[{"name": "a", "colour": "#000001"}, {"name": "b", "colour": "#000002"}],
        gsd=0.2,
        source=FolderSource(images=[str(tmp_path / "a.png")], labels=[str(tmp_path / "a_mask.png")], pair="^(a)"),
        split=SplitConfig(
            by="file",
            regions={
                "train": [FileRegion(match="*", box=Box(right=0.5))],
                "select": [FileRegion(match="*", box=Box(left=0.5, right=0.75))],
                "test": [FileRegion(match="*", box=Box(left=0.75))],
            },
        ),
    )
    for region in _prepare(config, tmp_path / "ready"):
        assert region.image.profile().block == (256, 256)
        assert region.image.uri != str(tmp_path / "a.png")
        assert region.image.resolution() == 0.2
        window = Window(0, 0, region.grid.height, region.grid.width)
        pixels, valid = region.image.read(window)
        assert not valid[:50].any()
        assert valid[50:].all()
        col = region.origin[1]
        assert (pixels[:, 50:] == image[:3, 50:, col : col + region.grid.width]).all()


def test_a_fourth_band_of_a_copy_is_no_alpha(write_raster: WriteRaster, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (4, 600, 600), dtype=np.uint8)
    write_raster(tmp_path / "a.tif", image, photometric="MINISBLACK")
    write_raster(tmp_path / "a_mask.tif", np.ones((600, 600), np.uint8))
    config = DataConfig(
        name="toy",
        classes=[{"name": "a", "colour": "#000001"}, {"name": "b", "colour": "#000002"}],
        bands=[4, 3, 2, 1],
        source=FolderSource(images=[str(tmp_path / "a.tif")], labels=[str(tmp_path / "a_mask.tif")], pair="^(a)"),
        split=SplitConfig(by="block", block=300),
    )
    for region in _prepare(config, tmp_path / "ready"):
        pixels, valid = region.image.read(Window(0, 0, region.grid.height, region.grid.width))
        row, col = region.origin
        assert valid.all()
        assert (pixels == image[::-1, row : row + region.grid.height, col : col + region.grid.width]).all()


def test_a_second_run_takes_what_is_there_and_a_change_is_noticed(labelled_folder: Make, tmp_path: Path) -> None:
    config = labelled_folder(split=BLOCKS)
    ready = tmp_path / "ready"
    first = _prepare(config, ready)
    times = {path: path.stat().st_mtime_ns for path in ready.iterdir()}
    assert _prepare(config, ready) == first
    assert {path: path.stat().st_mtime_ns for path in ready.iterdir()} == times
    with rasterio.open(tmp_path / "labels" / "s0_label.tif", "r+") as dst:
        dst.write(np.full((1, 96, 80), 2, np.uint8))
    second = _prepare(config, ready)
    assert fingerprint(second) != fingerprint(first)
    changed = {region.id for region, before in zip(second, first, strict=True) if region != before}
    assert changed == {region.id for region in first if region.id.startswith("s0_")}


def test_the_fingerprint_knows_data_not_places(labelled_folder: Make, tmp_path: Path) -> None:
    config = labelled_folder(split=BLOCKS)
    first = _prepare(config, tmp_path / "ready")
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("images", "labels"):
        (tmp_path / name).rename(moved / name)
    source = FolderSource(images=[str(moved / "images")], labels=[str(moved / "labels")], pair=config.source.pair)
    second = _prepare(config.model_copy(update={"source": source}), tmp_path / "other")
    assert fingerprint(second) == fingerprint(first)
    assert fingerprint(first[::-1]) == fingerprint(first)


def test_a_refused_label_leaves_nothing_behind(labelled_folder: Make, tmp_path: Path) -> None:
    config = labelled_folder(split=BLOCKS)
    with rasterio.open(tmp_path / "labels" / "s2_label.tif", "r+") as dst:
        label = dst.read()
        label[0, 5, 5:9] = 17
        dst.write(label)
    ready = tmp_path / "ready"
    with pytest.raises(UserError, match=r"s2_label.tif.*17.*4 px"):
        _prepare(config, ready)
    assert not [path.name for path in ready.iterdir() if path.name.startswith(("s2_image_r0c0", "."))]


def test_a_label_on_another_grid_is_refused(labelled_folder: Make, write_raster: WriteRaster, tmp_path: Path) -> None:
    config = labelled_folder(split=BLOCKS)
    label = np.zeros((96, 80), np.uint8)
    path = tmp_path / "labels" / "s1_label.tif"
    for wrong, words in (({"crs": "EPSG:32634"}, "EPSG:32633.*EPSG:32634"), ({"x": 500000.0}, "shifted")):
        write_raster(path, label, **({"x": 401000.0} | wrong))
        with pytest.raises(UserError, match=rf"s1_label.tif.*s1_image.tif.*{words}"):
            _prepare(config, tmp_path / "ready")
    write_raster(path, label[:50], x=401000.0)
    with pytest.raises(UserError, match=r"96 x 80.*50 x 80"):
        _prepare(config, tmp_path / "ready")


def test_resampled_imagery_and_label_stay_aligned(write_raster: WriteRaster, tmp_path: Path) -> None:
    fine, coarse = tmp_path / "fine", tmp_path / "coarse"
    truth = np.kron(np.random.default_rng(0).integers(0, 2, (6, 6), dtype=np.uint8), np.ones((32, 32), np.uint8))
    for folder, gsd, label in ((fine, 0.25, np.kron(truth, np.ones((2, 2), np.uint8))), (coarse, 0.5, truth)):
        write_raster(folder / f"{folder.name}.tif", np.stack([label * 200 + 20] * 3), gsd=gsd)
        write_raster(folder / "labels" / f"{folder.name}.tif", label, gsd=gsd)
    config = DataConfig(
        name="toy",
        classes=[{"name": "a", "colour": "#000001"}, {"name": "b", "colour": "#000002"}],
        gsd=0.5,
        source=FolderSource(images=[str(fine), str(coarse)], labels=[str(fine / "labels"), str(coarse / "labels")]),
        gsd_mismatch="resample",
        split=SplitConfig(by="block", block=64),
    )
    for region in _prepare(config, tmp_path / "ready"):
        row, col = region.origin
        expected = truth[row : row + region.grid.height, col : col + region.grid.width]
        assert (_label(region) == expected).all()
        assert region.image.grid().gsd == pytest.approx(0.5)
        pixels, _ = region.image.read(Window(0, 0, region.grid.height, region.grid.width))
        assert ((pixels[0] > 120) == expected).mean() > 0.97


def test_histogram_is_printed_and_absent_classes_are_named(labelled_folder: Make, tmp_path: Path) -> None:
    config = labelled_folder(split=BLOCKS)
    for path in (tmp_path / "labels").glob("*.tif"):
        with rasterio.open(path, "r+") as dst:
            dst.write(np.minimum(dst.read(), 1))
    prepared = _prepare(config, tmp_path / "ready")
    console = Console(width=120, record=True)
    console.print(histogram_table(prepared, config.classes))
    text = console.export_text()
    total = sum(p.histogram[1] for p in prepared if p.split == "train")
    assert "building" in text
    assert f"{total:,}" in text
    found = label_findings(split_regions(catalogue(config), config.split), prepared, config)[0]
    assert found.severity == "error"
    assert "class road (id 2) never occurs in the train split" in found.message()
    assert "allow_missing: [road]" in found.message()


def test_kampala_vector_and_raster_labels_agree(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "kampala"
    classes = [{"name": "background", "colour": "#000000"}, {"name": "building", "colour": "#dc2828"}]
    labels = {}
    for kind, pattern in (("index", "*_mask.tif"), ("vector", "*.geojson")):
        config = DataConfig(
            name=kind,
            classes=classes,
            label=LabelConfig(kind=kind),
            split=SplitConfig(by="block", block=1024),
            source=FolderSource(
                images=[str(folder / "*_image.tif")], labels=[str(folder / pattern)], pair=r"(kampala_block\w)_"
            ),
        )
        labels[kind] = np.concatenate([_label(region).ravel() for region in _prepare(config, tmp_path / kind)])
    both = (labels["index"] != IGNORE) & (labels["vector"] != IGNORE)
    assert both.mean() > 0.99
    assert (labels["index"] == labels["vector"])[both].mean() > 0.99
