"""Polygons of a map: valid, overlapping nowhere, covering exactly the map."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio.features
import shapely

from idgbr.errors import UserError
from idgbr.raster.polygons import PolygonOptions, polygonise
from idgbr.raster.scene import Scene
from idgbr.raster.styles import write_style

Make = Callable[..., str]
PLAIN = PolygonOptions()
CLASSES = [(0, "ground", "#ffffff"), (1, "roof", "#ff0000"), (2, "tree", "#00ff00")]


def _read(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path, layer="classes")


def _check_coverage(frame: gpd.GeoDataFrame) -> None:
    shapes = frame.geometry.values
    assert frame.is_valid.all()
    assert set(frame.geom_type) == {"Polygon"}
    assert shapely.coverage_is_valid(shapes)
    assert shapely.area(shapes).sum() == pytest.approx(shapely.union_all(shapes).area, rel=1e-9)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".parquet"])
def test_polygons_are_the_map(make: Make, tmp_path: Path, noise: np.ndarray, suffix: str) -> None:
    path = make("map.tif", noise, nodata=255)
    count = polygonise(path, tmp_path / f"out{suffix}", CLASSES, PLAIN)
    frame = _read(tmp_path / f"out{suffix}")
    assert len(frame) == count
    _check_coverage(frame)
    assert frame.crs.to_epsg() == (4326 if suffix == ".geojson" else 32636)
    if suffix == ".geojson":
        assert frame.total_bounds[0] == pytest.approx(33, abs=1e-3)  # longitude first
    burnt = rasterio.features.rasterize(
        zip(frame.to_crs(32636).geometry, frame.class_id, strict=True),
        out_shape=noise.shape[1:],
        transform=rasterio.transform.from_origin(500000, 100000, 0.5, 0.5),
        fill=255,
    )
    np.testing.assert_array_equal(burnt, noise[0])
    assert set(zip(frame["class"], frame.colour, strict=True)) == {(n, c) for _, n, c in CLASSES}
    assert frame.area_m2.sum() == pytest.approx((noise != 255).sum() * 0.25)
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_specks_of_nodata_leave_no_holes(make: Make, tmp_path: Path) -> None:
    ids = np.ones((1, 40, 40), np.uint8)
    ids[0, 10, 10], ids[0, 20:30, 20:30] = 255, 255
    polygonise(make("map.tif", ids, nodata=255), tmp_path / "out.gpkg", CLASSES, PolygonOptions(1))
    [shape] = _read(tmp_path / "out.gpkg").geometry
    assert len(shape.interiors) == 1


def test_slivers_join_neighbours_and_edges_stay_shared(make: Make, tmp_path: Path, noise: np.ndarray) -> None:
    polygonise(make("map.tif", noise, nodata=255), tmp_path / "out.gpkg", CLASSES, PolygonOptions(2.5))
    frame = _read(tmp_path / "out.gpkg")
    _check_coverage(frame)
    assert frame.area_m2.min() >= 2.5
    assert frame.area_m2.sum() == pytest.approx(((noise != 255).sum() - 1) * 0.25)  # one pixel amid nodata went


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".parquet"])
def test_a_map_without_data_has_no_polygons(make: Make, tmp_path: Path, suffix: str) -> None:
    empty, out = make("empty.tif", np.full((1, 9, 9), 255, np.uint8), nodata=255), tmp_path / f"empty{suffix}"
    assert polygonise(empty, out, CLASSES, PLAIN) == 0
    assert len(_read(out)) == 0


def test_a_small_area_joins_its_largest_neighbour(make: Make, tmp_path: Path) -> None:
    ids = np.zeros((1, 40, 40), np.uint8)
    ids[0, :, 30:] = 1
    ids[0, 10:12, 28:30] = 2  # ground on three sides, roof on one
    polygonise(make("map.tif", ids), tmp_path / "out.gpkg", CLASSES, PolygonOptions(2))
    frame = _read(tmp_path / "out.gpkg")
    assert dict(zip(frame["class"], frame.area_m2, strict=True)) == {"ground": 300, "roof": 100}


def test_two_areas_become_one_where_what_parted_them_joins_them(make: Make, tmp_path: Path) -> None:
    ids = np.ones((1, 40, 40), np.uint8)
    ids[0, :, 20] = 2
    polygonise(make("map.tif", ids), tmp_path / "out.gpkg", CLASSES, PolygonOptions(12))
    assert _read(tmp_path / "out.gpkg").area_m2.tolist() == [400]


@pytest.mark.parametrize("min_area", [0, 0.75, 2.5])
@pytest.mark.parametrize("tile", [7, 32])
def test_polygons_do_not_depend_on_tiles(
    make: Make, tmp_path: Path, noise: np.ndarray, tile: int, min_area: float
) -> None:
    path = make("map.tif", noise, nodata=255)
    made = []
    for side in (1024, tile):
        polygonise(path, tmp_path / "out.gpkg", CLASSES, PolygonOptions(min_area), side)
        frame = _read(tmp_path / "out.gpkg")
        _check_coverage(frame)
        made.append(sorted(zip(frame.class_id, shapely.to_wkb(frame.normalize()), strict=True)))
    assert made[0] == made[1]


def test_what_is_too_large_stays_cut_and_its_neighbours_fit(
    make: Make, tmp_path: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole, cut = make("map.tif", noise, nodata=255), tmp_path / "whole.gpkg", tmp_path / "cut.gpkg"
    polygonise(path, whole, CLASSES, PolygonOptions(0.75))
    monkeypatch.setattr("idgbr.raster.outlines.LARGEST", 100)
    polygonise(path, cut, CLASSES, PolygonOptions(0.75), tile=16)
    one, other = _read(whole), _read(cut)
    _check_coverage(other)
    assert len(one) < len(other) < len(one) + 40
    joined = other.dissolve("class_id").geometry.normalize()
    assert joined.geom_equals(one.dissolve("class_id").geometry.normalize()).all()


def test_memory_does_not_grow_with_the_map(tmp_path: Path) -> None:
    peaks = {}
    for rows in (2048, 8192):
        path, profile = str(tmp_path / f"{rows}.tif"), {"driver": "GTiff", "count": 1, "dtype": "uint8"}
        with rasterio.open(path, "w", width=4096, height=rows, tiled=True, compress="deflate", **profile) as written:
            for _, window in written.block_windows(1):
                side = np.indices((window.height, window.width)) // 32
                written.write(side.sum(0).astype(np.uint8) % 2, 1, window=window)
        code = (
            "import resource, sys; from idgbr.raster.polygons import PolygonOptions, polygonise; "
            f"polygonise({path!r}, {path[:-3] + 'gpkg'!r}, "
            "[(0, 'a', '#ffffff'), (1, 'b', '#000000')], PolygonOptions(4)); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        peaks[rows] = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert len(_read(tmp_path / "8192.gpkg")) == (8192 // 32) * (4096 // 32)
    assert peaks[8192] < 1.1 * peaks[2048]


def test_a_map_without_georeference_is_in_pixels(make: Make, tmp_path: Path, noise: np.ndarray) -> None:
    path = make("map.tif", noise, nodata=255, crs=None, transform=None)
    polygonise(path, tmp_path / "out.gpkg", CLASSES, PolygonOptions(5))
    frame = _read(tmp_path / "out.gpkg")
    assert frame.crs is None
    assert frame.total_bounds.tolist() == [0, 0, 80, 60]
    assert frame.area_px.min() >= 5


def test_bad_outputs_are_messages(make: Make, tmp_path: Path, noise: np.ndarray) -> None:
    path = make("map.tif", noise)
    with pytest.raises(UserError, match=r"'\.kml'.*\.gpkg, \.geojson, \.fgb, \.parquet"):
        polygonise(path, tmp_path / "out.kml", CLASSES, PLAIN)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        polygonise(path, tmp_path / "file" / "out.gpkg", CLASSES, PLAIN)


def test_a_map_that_cannot_be_read_is_named(make: Make, tmp_path: Path, noise: np.ndarray) -> None:
    path = Path(make("map.tif", noise))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"map\.tif"):
        polygonise(str(path), tmp_path / "out.gpkg", CLASSES, PLAIN)
    assert [found.name for found in tmp_path.iterdir()] == ["map.tif"]


def test_kampalas_mask_becomes_its_polygons(data_dir: Path, tmp_path: Path) -> None:
    mask = str(data_dir / "kampala" / "kampala_blockA_mask.tif")
    polygonise(mask, tmp_path / "out.geojson", CLASSES, PolygonOptions(1))
    frame = _read(tmp_path / "out.geojson")
    _check_coverage(frame)
    truth = gpd.read_file(data_dir / "kampala" / "kampala_blockA_labels.geojson").to_crs(3857).make_valid()
    made = frame[frame.class_id == 1].to_crs(3857)
    one, other = (
        shapely.union_all(g.values) for g in (made.make_valid(), truth.clip_by_rect(*Scene(mask).grid().bounds))
    )
    assert one.intersection(other).area > 0.97 * one.union(other).area


def test_lengths_are_metres_in_feet_and_degrees(make: Make, tmp_path: Path, noise: np.ndarray) -> None:
    """The same ground in US feet, and in degrees where a pixel is twice as high as wide, is simplified alike."""
    counts = []
    feet, degrees = 1200 / 3937, 1 / 111_320
    for name, crs, width, height in (
        ("metres", "EPSG:32636", 0.5, 0.5),
        ("feet", "EPSG:2263", 0.5 / feet, 0.5 / feet),
        ("degrees", "EPSG:4326", 0.5 * degrees / np.cos(np.radians(60)), 0.5 * degrees),
    ):
        corner = {"metres": (500000, 100000), "feet": (984250, 200000), "degrees": (10, 60)}[name]
        transform = rasterio.transform.from_origin(*corner, width, height)
        path = make(f"{name}.tif", noise, nodata=255, crs=crs, transform=transform)
        polygonise(path, tmp_path / f"{name}.gpkg", CLASSES, PolygonOptions(1.9, 0.47))
        counts.append(_read(tmp_path / f"{name}.gpkg").count_coordinates().sum())
    assert max(counts) <= 1.02 * min(counts)


def test_polygons_carry_means_of_the_map_s_bands(make: Make, tmp_path: Path) -> None:
    ids = np.zeros((20, 30), np.uint8)
    ids[:, 15:] = 1
    probability = np.where(ids == 1, 254, 127).astype(np.uint8)
    path = make("map.tif", np.stack([ids, probability]), nodata=255, names=("class", "probability"))
    polygonise(path, tmp_path / "out.parquet", CLASSES, PLAIN)
    frame = _read(tmp_path / "out.parquet")
    assert dict(zip(frame["class"], frame.probability, strict=True)) == {"ground": 0.5, "roof": 1}


def test_geoparquet_has_a_covering_box(make: Make, tmp_path: Path, noise: np.ndarray) -> None:
    out = tmp_path / "out.parquet"
    polygonise(make("map.tif", noise, nodata=255), out, CLASSES, PLAIN, tile=32)
    geo = json.loads(pq.read_metadata(out).metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert geo["columns"]["geometry"]["bbox"] == _read(out).total_bounds.tolist()
    box = (500001, 99990, 500003, 99995)
    assert 0 < len(gpd.read_parquet(out, bbox=box)) < len(_read(out))


def test_a_class_that_does_not_exist_is_a_message(make: Make, tmp_path: Path, noise: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"unknown class 'shed'.*ground, roof, tree"):
        polygonise(make("map.tif", noise), tmp_path / "out.gpkg", CLASSES, PolygonOptions(regularise=("shed",)))


def test_the_layer_carries_its_style(make: Make, tmp_path: Path, noise: np.ndarray) -> None:
    path = make("map.tif", noise, nodata=255)
    polygonise(path, tmp_path / "out.gpkg", CLASSES, PLAIN)
    [row] = gpd.read_file(tmp_path / "out.gpkg", layer="layer_styles").to_dict("records")
    assert (row["f_table_name"], row["f_geometry_column"], row["useAsDefault"]) == ("classes", "geom", True)
    written = Path(write_style(path, CLASSES))
    assert written.name == "map.qml"
    assert row["styleQML"] == written.read_text()
    root = ElementTree.fromstring(row["styleQML"])
    renderer = root.find("pipe/rasterrenderer")
    assert renderer is not None and (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    entries = {e.get("value"): (e.get("label"), e.get("color")) for e in renderer.iter("paletteEntry")}
    assert entries == {**{str(i): (n, c) for i, n, c in CLASSES}, "255": ("no data", "#000000")}
    vector = root.find("renderer-v2")
    assert vector is not None and vector.get("attr") == "class_id"
    assert [c.get("label") for c in vector.iter("category")] == [n for _, n, _ in CLASSES]
    fills = [o.get("value") for o in vector.iter("Option") if o.get("name") == "color"]
    assert fills == ["255,255,255,255", "255,0,0,255", "0,255,0,255"]
