"""Refining scenes end to end on a real Ray with a tiny random model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from toys import CLASSES, toy_region

from idgbr import IGNORE
from idgbr.config.tree import ResourcesConfig
from idgbr.distributed.mapping.refine import RefineRequest, refine
from idgbr.distributed.mapping.sheets import adjacent
from idgbr.errors import UserError
from idgbr.raster.grid import Window
from idgbr.raster.polygons import PolygonOptions

SIZE = 160
RESOURCES = ResourcesConfig(infer_workers=1, cpus_per_worker=0.5)  # their start is what takes time here


@pytest.fixture(scope="module")
def model(toy_model: Path) -> str:
    return str(toy_model)


def test_a_map_keeps_the_scene_s_georeference_and_nodata(ray_session: None, tmp_path: Path, model: str) -> None:
    scene = toy_region(tmp_path, "scene", SIZE).image
    request = RefineRequest(model, (scene.uri,), str(tmp_path / "maps"), bands=("coarse", "uncertainty"),
                            polygons="gpkg", outlines=PolygonOptions(1.0, 1.0, ("class 1",)))  # fmt: skip
    done = refine(request, RESOURCES)
    with rasterio.open(scene.uri) as source, rasterio.open(done["maps"][0]) as out:
        assert (out.crs, out.transform, out.shape) == (source.crs, source.transform, source.shape)
        assert out.nodata == IGNORE
        assert out.descriptions == ("class", "coarse", "uncertainty")
        assert out.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        ids = out.read(1)
    valid = scene.read(Window(0, 0, SIZE, SIZE))[1]
    assert ((ids == IGNORE) == ~valid).all()
    assert ids[valid].max() < CLASSES
    assert Path(done["polygons"][0]).exists()
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == [
        "scene_image.gpkg",
        "scene_image.qml",
        "scene_image.tif",
    ]
    before = Path(done["maps"][0]).stat().st_mtime_ns
    refine(request, RESOURCES)
    assert Path(done["maps"][0]).stat().st_mtime_ns == before


def test_a_few_windows_need_no_ray(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, threads = toy_region(tmp_path, "scene", SIZE).image, torch.get_num_threads()
    monkeypatch.setattr("idgbr.distributed.mapping.refine.start_ray", lambda _: pytest.fail("Ray was started"))
    done = refine(RefineRequest(model, (scene.uri,), str(tmp_path / "maps")), RESOURCES)
    assert Path(done["maps"][0]).exists() and torch.get_num_threads() == threads
    few = RESOURCES.model_copy(update={"in_process_windows": 8})  # the scene has 9
    with pytest.raises(pytest.fail.Exception):
        refine(RefineRequest(model, (scene.uri,), str(tmp_path / "again")), few)


def test_own_coarse_map_and_sheets(ray_session: None, tmp_path: Path, model: str) -> None:
    """Two halves of a scene as sheets, by this process, give the same map as the scene by two workers."""
    region = toy_region(tmp_path, "whole", SIZE)
    (tmp_path / "sheets").mkdir()
    (tmp_path / "coarse").mkdir()
    for i, rows in enumerate((slice(0, 80), slice(80, SIZE))):
        for path, folder in ((region.image.uri, "sheets"), (region.label, "coarse")):
            with rasterio.open(path) as source:
                window = rasterio.windows.Window(0, rows.start, SIZE, 80)
                profile = source.profile | {"height": 80, "transform": source.window_transform(window)}
                with rasterio.open(tmp_path / folder / f"s{i}.tif", "w", **profile) as out:
                    out.write(source.read(window=window))
    two = RESOURCES.model_copy(update={"infer_workers": 2, "in_process_windows": 0})
    whole = refine(RefineRequest(model, (region.image.uri,), str(tmp_path / "one"), coarse=(region.label,)), two)
    parts = refine(
        RefineRequest(model, (str(tmp_path / "sheets"),), str(tmp_path / "two"), coarse=(str(tmp_path / "coarse"),)),
        RESOURCES,
    )
    maps = [rasterio.open(path).read(1) for path in [*whole["maps"], *parts["maps"]]]
    assert (np.concatenate(maps[1:]) == maps[0]).all()


def test_a_damaged_block_is_nodata_and_told(ray_session: None, tmp_path: Path, model: str) -> None:
    """Beyond --max-unreadable the job fails, but keeps what it did; within it the rest of the map is as it was."""
    plain = toy_region(tmp_path, "scene", 320).image
    clean = refine(RefineRequest(model, (plain.uri,), str(tmp_path / "clean")), RESOURCES)
    with rasterio.open(plain.uri) as source:
        profile, pixels = source.profile | {"compress": "DEFLATE"}, source.read()
    damaged = tmp_path / "damaged.tif"
    with rasterio.open(damaged, "w", **profile) as out:
        out.write(pixels)
    with rasterio.open(damaged) as source:
        place, size = (int(source.get_tag_item(f"BLOCK_{key}_1_1", "TIFF", 1)) for key in ("OFFSET", "SIZE"))
    with damaged.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * size)
    request = RefineRequest(model, (str(damaged),), str(tmp_path / "maps"))
    with pytest.raises(
        UserError, match=r"1 of \d+ windows cannot be read, more than --max-unreadable 0.01.*row"
    ) as raised:
        refine(request, RESOURCES)
    assert "damaged" in str(raised.value) and not list((tmp_path / "maps").glob("*.tif"))
    done = refine(replace(request, max_unreadable=0.5), RESOURCES)
    maps = [rasterio.open(path).read(1) for path in [*clean["maps"], *done["maps"]]]
    # Windows of 64 px every 48 reach into the block from row and column 48 on; others cover all but 64 to 144.
    nodata = maps[0] == IGNORE
    nodata[64:144, 64:144] = True
    np.testing.assert_array_equal(maps[1] == IGNORE, nodata)
    np.testing.assert_array_equal(maps[1][208:], maps[0][208:])
    np.testing.assert_array_equal(maps[1][:, 208:], maps[0][:, 208:])
    manifest = json.loads((tmp_path / "maps" / "damaged.manifest.json").read_text())
    assert len(manifest["unreadable"]) == done["unreadable"] > 0
    assert all("damaged.tif: cannot read rows" in window["reason"] for window in manifest["unreadable"])
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == [
        "damaged.manifest.json",
        "damaged.qml",
        "damaged.tif",
    ]


def test_bad_input_is_refused_before_anything_starts(tmp_path: Path, model: str) -> None:
    region = toy_region(tmp_path, "scene", 64)
    other = toy_region(tmp_path, "other", 96)
    with pytest.raises(UserError, match="does not lie on image"):
        refine(RefineRequest(model, (region.image.uri,), str(tmp_path / "o"), coarse=(other.label,)), RESOURCES)
    with pytest.raises(UserError, match="overwrite"):
        refine(RefineRequest(model, (region.image.uri,), region.image.uri), RESOURCES)
    shed = PolygonOptions(regularise=("shed",))
    with pytest.raises(UserError, match=r"unknown class 'shed'.*class 0, class 1"):
        refine(RefineRequest(model, (region.image.uri,), str(tmp_path / "o"), outlines=shed), RESOURCES)
    with pytest.raises(UserError, match="no such file"):
        refine(RefineRequest(model, (str(tmp_path / "none.tif"),), str(tmp_path / "o")), RESOURCES)
    assert not (tmp_path / "o").exists()


def test_adjacent_sheets_are_one_group(tmp_path: Path) -> None:
    grid = toy_region(tmp_path, "a", 64).grid
    right, below = grid.crop(Window(0, 64, 64, 64)), grid.crop(Window(64, 0, 64, 64))
    far, shifted = grid.crop(Window(0, 300, 64, 64)), grid.crop(Window(8, 8, 64, 64))
    assert adjacent([grid, right, far, below]) == [[0, 1, 3], [2]]
    assert adjacent([grid, shifted]) == [[0], [1]]
