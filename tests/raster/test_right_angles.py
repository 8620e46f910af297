"""Simplified and regularised polygons: a coverage still, with right angles where they fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio.features
import shapely

from idgbr.raster.polygons import PolygonOptions, polygonise

Make = Callable[..., str]
CLASSES = [(0, "ground", "#ffffff"), (1, "roof", "#ff0000"), (2, "tree", "#00ff00")]


def _read(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(path, layer="classes")


def _check_coverage(frame: gpd.GeoDataFrame) -> None:
    shapes = frame.geometry.values
    assert frame.is_valid.all() and set(frame.geom_type) == {"Polygon"}
    assert shapely.coverage_is_valid(shapes)
    assert shapely.area(shapes).sum() == pytest.approx(shapely.union_all(shapes).area, rel=1e-9)


@pytest.fixture
def town() -> np.ndarray:
    """Frayed roofs at several angles on ground, against trees, with a courtyard, at a gap in the data."""
    rows, cols = np.mgrid[:160, :200]
    ids = np.where((rows - 150) ** 2 + (cols - 60) ** 2 < 40**2, 2, 0)
    wobble = np.random.default_rng(0).normal(0, 0.15, (2, 160, 200))
    for row, col, degrees, high, wide in ((40, 50, 20, 24, 36), (110, 60, 65, 20, 40), (60.5, 140.5, 0, 30, 34)):
        turn = np.radians(degrees)
        down, right = rows - row + wobble[0], cols - col + wobble[1]
        along, across = right * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - right * np.sin(turn)
        ids[(np.abs(along) < wide / 2) & (np.abs(across) < high / 2)] = 1
    ids[56:64, 134:146] = 0
    ids[:, 190:] = 255
    return ids[None].astype(np.uint8)


def _corner_angles(polygon: shapely.Polygon) -> np.ndarray:
    """Degrees off a right angle at every vertex that turns by more than 10 degrees."""
    off = []
    for ring in (polygon.exterior, *polygon.interiors):
        step = np.diff(shapely.get_coordinates(ring), axis=0)
        heading = np.degrees(np.arctan2(step[:, 1], step[:, 0]))
        turn = np.abs((heading - np.roll(heading, 1) + 180) % 360 - 180)
        off.append(np.abs(turn[turn > 10] - 90))
    return np.concatenate(off)


def _burn(frame: gpd.GeoDataFrame, path: str) -> np.ndarray:
    with rasterio.open(path) as source:
        pairs = zip(frame.geometry, frame.class_id, strict=True)
        return rasterio.features.rasterize(pairs, out_shape=source.shape, transform=source.transform, fill=255)


@pytest.mark.parametrize("tile", [1024, 50])
@pytest.mark.parametrize("regularise", [(), ("roof",)])
def test_simplified_polygons_are_a_coverage(
    make: Make, tmp_path: Path, noise: np.ndarray, tile: int, regularise: tuple[str, ...]
) -> None:
    """On noise every neighbourhood is awkward, and no roof has right angles."""
    path = make("map.tif", noise, nodata=255)
    polygonise(path, tmp_path / "plain.gpkg", CLASSES, PolygonOptions(2))
    polygonise(path, tmp_path / "out.gpkg", CLASSES, PolygonOptions(2, 0.5, regularise), tile)
    plain, simple = _read(tmp_path / "plain.gpkg"), _read(tmp_path / "out.gpkg")
    _check_coverage(simple)
    assert len(simple) == len(plain)
    assert simple.area_m2.sum() == pytest.approx(plain.area_m2.sum(), rel=0.01)
    assert simple.count_coordinates().sum() < plain.count_coordinates().sum() / 2
    assert simple.total_bounds.tolist() == plain.total_bounds.tolist()  # the next sheet's polygons fit


@pytest.mark.parametrize("tile", [1024, 50])
@pytest.mark.parametrize("simplify", [0, 0.5])
def test_roofs_get_right_angles(make: Make, tmp_path: Path, town: np.ndarray, tile: int, simplify: float) -> None:
    path = make("map.tif", town, nodata=255)
    polygonise(path, tmp_path / "plain.gpkg", CLASSES, PolygonOptions(2))
    polygonise(path, tmp_path / "out.gpkg", CLASSES, PolygonOptions(2, simplify, ("roof",)), tile)
    plain, right = _read(tmp_path / "plain.gpkg"), _read(tmp_path / "out.gpkg")
    _check_coverage(right)
    roofs, before = right[right["class"] == "roof"], plain[plain["class"] == "roof"]
    assert len(roofs) == len(before) == 3
    for roof, roof_before in zip(*(f.sort_values("area_m2").geometry for f in (roofs, before)), strict=True):
        assert (_corner_angles(roof) < 1).all()
        assert len(_corner_angles(roof)) <= 12
        assert roof.area == pytest.approx(roof_before.area, rel=0.02)
        assert roof.intersection(roof_before).area > 0.95 * roof.union(roof_before).area
    assert sorted(len(roof.interiors) for roof in roofs.geometry) == [0, 0, 1]
    # What lies in the courtyard and round the roofs is what it was, within a pixel of the roofs' edges.
    changed = _burn(right, path) != _burn(plain, path)
    assert changed.mean() < 0.02
    assert not changed[:, 192:].any()


def test_what_no_right_angles_fit_stays_as_it_is(make: Make, tmp_path: Path) -> None:
    """A wall of one pixel's width across the pixels: a rectangle along it shares little of its area."""
    ids = np.zeros((1, 40, 40), np.uint8)
    step = np.arange(30)
    ids[0, 5 + step, 5 + step] = ids[0, 6 + step, 5 + step] = 1
    path = make("map.tif", ids)
    polygonise(path, tmp_path / "plain.gpkg", CLASSES, PolygonOptions())
    polygonise(path, tmp_path / "out.gpkg", CLASSES, PolygonOptions(regularise=("roof",)))
    plain, right = _read(tmp_path / "plain.gpkg"), _read(tmp_path / "out.gpkg")
    assert plain.geometry.geom_equals(right.geometry).all()
