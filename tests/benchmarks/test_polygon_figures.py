"""Figures of polygon layers through the benchmark's command."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import pytest
from shapely import Polygon, box

import benchmarks
from idgbr.subcommands import run_command


def outputs(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    with pytest.raises(SystemExit):
        run_command(benchmarks, arguments=["polygons", *words])
    last: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return last


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """Two buildings, one of them a triangle, and a tree, near 15 degrees east."""
    shapes = [box(0, 0, 20, 5), Polygon([(50, 0), (60, 0), (50, 10)]), box(0, 50, 10, 60)]
    frame = gpd.GeoDataFrame({"class": ["building", "building", "tree"]}, geometry=shapes, crs="EPSG:32633")
    frame.geometry = frame.translate(500_000, 5_000_000)
    frame.to_file(tmp_path / "map.gpkg", layer="classes")
    return tmp_path / "map.gpkg"


def test_figures_per_class(layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = outputs(capsys, "--layer", str(layer), "--regularised", "building")
    classes = last["outputs"]["classes"]  # type: ignore[index]
    assert classes["building"]["polygons"] == 2
    assert classes["building"]["vertices_per_km"] == pytest.approx(7 / (50 + 20 + 200**0.5) * 1000)
    assert classes["building"]["corners_off"] == pytest.approx(2 / 7)
    assert classes["tree"] == {"polygons": 1, "vertices_per_km": pytest.approx(100)}


def test_degrees_and_feet_are_measured_in_metres(layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = gpd.read_file(layer)
    for crs, name in (("EPSG:4326", "degrees.geojson"), ("EPSG:2227", "feet.gpkg")):
        path = layer.with_name(name)
        (frame if "feet" in name else frame.to_crs(crs)).set_crs(crs, allow_override=True).to_file(path)
        last = outputs(capsys, "--layer", str(path))
        found = last["outputs"]["classes"]["tree"]["vertices_per_km"]  # type: ignore[index]
        assert found == pytest.approx(100 / (0.3048006 if "feet" in name else 1), rel=1e-3)


def test_what_is_no_layer_of_class_polygons_is_refused(layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = layer.with_name("points.gpkg")
    gpd.GeoDataFrame({"class": ["a"]}, geometry=gpd.points_from_xy([0], [0]), crs="EPSG:32633").to_file(points)
    for words, message in (
        (["--layer", str(layer.with_name("gone.gpkg"))], "gone.gpkg: cannot be read"),
        (["--layer", str(points)], "found Point; expected polygons"),
        (["--layer", str(layer), "--attribute", "kind"], "no attribute 'kind'; found class"),
        (["--layer", str(layer), "--regularised", "roof"], "has no class 'roof'; found building, tree"),
    ):
        last = outputs(capsys, *words)
        assert last["exit_code"] == 2
        assert message in str(last["message"])
