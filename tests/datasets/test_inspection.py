"""What inspection proposes for labels of every kind; rasters are made by the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from idgbr.config.data import DataConfig
from idgbr.config.load import load_experiment
from idgbr.datasets.catalogue import catalogue
from idgbr.datasets.experiment_file import Machine, experiment, write_experiment
from idgbr.datasets.inspection import Inspection, inspect_data
from idgbr.datasets.pairing import pair_pattern
from idgbr.errors import UserError

WriteRaster = Callable[..., str]
SIDE = 96
ISPRS = np.array([[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0], [255, 0, 0]], np.uint8)
DUBAI = np.array([[0x3C, 0x10, 0x98], [0x84, 0x29, 0xF6], [0x6E, 0xC1, 0xE4], [0x9B, 0x9B, 0x9B]], np.uint8)


def ids(number: int, classes: int = 2) -> np.ndarray:
    cells = np.random.default_rng(number).integers(0, classes, (6, 6), dtype=np.uint8)
    cells.ravel()[:classes] = range(classes)
    return np.kron(cells, np.ones((16, 16), np.uint8))


def blurred(plane: np.ndarray) -> np.ndarray:
    """0 and 255 with a thin ramp between them, as resizing and anti-aliased polygons leave it."""
    out = plane.astype(float) * 255
    out[:, 1:] = np.where(out[:, 1:] != out[:, :-1], 128 + np.arange(out.shape[0])[:, None], out[:, 1:])
    return out.astype(np.uint8)


def instances(number: int) -> np.ndarray:
    cells = np.arange(36, dtype=np.uint8).reshape(6, 6)
    cells[cells > 11 + 2 * number] = 0
    return np.kron(cells, np.ones((16, 16), np.uint8))


KINDS: dict[str, tuple[Callable[[int], np.ndarray], str, list[str], dict[str, Any]]] = {
    "zanzibar": (lambda i: ids(i) * 255, ".tif", ["background", "object"], {"nonzero": True, "ignore": []}),
    "christchurch": (lambda i: ids(i) * 255, ".png", ["background", "object"], {"nonzero": True, "ignore": []}),
    "kampala": (lambda i: ids(i), ".tif", ["background", "object"], {}),
    "jonkoping": (lambda i: np.stack([blurred(ids(i))] * 3), ".png", ["background", "object"], {"threshold": 128}),
    "no label at edges": (lambda i: np.where(np.arange(SIDE) < 9, 255, ids(i)), ".tif", ["background", "object"], {}),
    "no label, three": (
        lambda i: np.where(np.arange(SIDE) < 9, 255, ids(i, 3)), ".png", ["class_0", "class_1", "class_2"], {}
    ),
    "red on black": (
        lambda i: np.stack([ids(i) * 255, ids(i) * 0, ids(i) * 0]), ".png", ["background", "object"],
        {"ignore_colours": []},
    ),
    "vaihingen": (
        lambda i: ISPRS[ids(i, 6)].transpose(2, 0, 1), ".png",
        ["impervious", "building", "low_vegetation", "tree", "car", "clutter"], {"ignore_colours": ["#000000"]},
    ),
    "dubai": (
        lambda i: DUBAI[ids(i, 4)].transpose(2, 0, 1), ".png", ["building", "land", "road"],
        {"ignore_colours": ["#000000", "#9b9b9b"]},
    ),
    "agoro": (instances, ".png", ["background", "object"], {"nonzero": True, "ignore": []}),
    "values": (
        lambda i: ids(i, 3) * 10 + 10, ".tif", ["class_10", "class_20", "class_30"],
        {"values": {10: 0, 20: 1, 30: 2}},
    ),
    "ids and 255": (lambda i: np.where(ids(i + 9, 4) == 3, 255, ids(i, 3)).astype(np.uint8), ".tif",
                    ["class_0", "class_1", "class_2"], {}),
    "ids below 0": (lambda i: ids(i, 3).astype(np.int16) - 1, ".tif", ["background", "object"], {"ignore": [255, -1]}),
    "objects alone": (lambda i: np.where(ids(i), 1, np.nan).astype(np.float32), ".tif", ["background", "object"],
                      {"nonzero": True, "ignore": []}),
}  # fmt: skip


@pytest.fixture
def inspected(tmp_path: Path, write_raster: WriteRaster) -> Callable[..., Inspection]:
    """Writes twelve images with labels of a kind, and inspects them; GeoTIFF labels lie where `place` says."""

    def make(
        label: Callable[[int], np.ndarray],
        end: str,
        place: Callable[[int], float] = lambda i: 1000.0 * i,
        **options: Any,
    ) -> Inspection:
        for i in range(12):
            image = np.random.default_rng(i).integers(1, 255, (3, SIDE, SIDE), dtype=np.uint8)
            write_raster(tmp_path / f"images/a{i}_image.png", image, crs=None)
            lies: dict[str, Any] = {"x": 400000.0 + place(i)} if end == ".tif" else {"crs": None}
            write_raster(tmp_path / f"labels/a{i}_mask{end}", label(i), **lies, **options)
        return inspect_data([str(tmp_path / "images")], [str(tmp_path / "labels")], "toy")

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_recognised_and_the_experiment_written_loads(
    kind: str, inspected: Callable[..., Inspection], tmp_path: Path
) -> None:
    make, end, names, label = KINDS[kind]
    found = inspected(make, end)
    assert [spec["name"] for spec in found.data["classes"]] == names
    assert {key: value for key, value in found.data["label"].items() if key != "kind"} == label
    assert not [finding for finding in found.findings if finding.severity == "error"]
    doubts = {finding.key for finding in found.findings}
    assert ("data.label.threshold" in doubts) == ("threshold" in label)
    assert "data.split" not in doubts and found.data["split"]["by"] == "fraction"
    tree = experiment(found, Machine(2, 0))
    write_experiment(str(tmp_path / "toy.yaml"), tree, "toy")
    config = load_experiment(tmp_path / "toy.yaml")
    assert config.data.label.model_dump(exclude_defaults=True) == {
        k: v for k, v in found.data["label"].items() if v != "index" and (k, v) != ("ignore_colours", ["#000000"])
    }
    assert config.coarse.window == 96 and config.refiner.window == 96
    assert config.data.source.pair == r"^(.+?)(?:_image|_mask)?$"


def test_a_nodata_tag_that_is_a_class_is_mapped_and_said(inspected: Callable[..., Inspection]) -> None:
    found = inspected(ids, ".tif", nodata=0)
    assert found.data["label"]["values"] == {0: 0, 1: 1}
    assert any("nodata tag" in finding.found for finding in found.findings)


def test_imagery_is_no_label(inspected: Callable[..., Inspection]) -> None:
    found = inspected(lambda i: np.random.default_rng(i).integers(1, 255, (3, SIDE, SIDE), dtype=np.uint8), ".png")
    assert [f.key for f in found.findings if f.severity == "error"] == ["data.source.labels"]


def test_images_of_one_place_lie_in_one_split(inspected: Callable[..., Inspection]) -> None:
    found = inspected(ids, ".tif", place=lambda i: 48.0 * i + 40 * (i // 10))  # 96 px of 0.5 m: neighbours touch
    assert found.data["split"]["by"] == "fraction"
    found = inspected(ids, ".tif", place=lambda i: 1000.0 * (i % 10))  # the last two lie on the first two
    assert [f.found for f in found.findings if f.key == "data.split"] == [
        "4 of 12 images show ground that another one shows, too (10 place(s) in all)"
    ]
    regions = found.data["split"]["regions"]
    split_of = {entry["match"]: name for name, entries in regions.items() for entry in entries}
    assert (
        split_of["a10_image.png"] == split_of["a0_image.png"] and split_of["a11_image.png"] == split_of["a1_image.png"]
    )
    assert len(split_of) == 12 and 3 <= len(regions["test"]) <= 4 and 2 <= len(regions["select"]) <= 3
    found = inspected(ids, ".tif", place=lambda i: 0.0)
    assert found.data["split"]["by"] == "block"
    assert "(1 place(s) in all)" in next(f.found for f in found.findings if f.key == "data.split")


def test_doubts_about_images_are_those_of_every_job(
    inspected: Callable[..., Inspection], tmp_path: Path, write_raster: WriteRaster, capsys: Any
) -> None:
    assert "data.nodata" not in {finding.key for finding in inspected(ids, ".png").findings}
    collar = np.full((3, SIDE, SIDE), 200, np.uint8)
    collar[:, :20] = 255
    write_raster(tmp_path / "images/a3_image.png", collar, crs=None)
    found = inspect_data([str(tmp_path / "images")], [str(tmp_path / "labels")], "toy")
    (doubt,) = (finding for finding in found.findings if finding.key == "data.nodata")
    assert capsys.readouterr().out == ""
    catalogue(DataConfig.model_validate(found.data))
    assert f"warning: {doubt.message()}" in capsys.readouterr().out
    assert doubt in inspect_data([str(tmp_path / "images")], [], "toy").findings


def test_polygons_with_and_without_an_attribute(tmp_path: Path, write_raster: WriteRaster) -> None:
    image = np.random.default_rng(0).integers(1, 255, (3, 160, 160), dtype=np.uint8)
    write_raster(tmp_path / "town.tif", image)
    boxes = [
        shapely.box(400000 + x, 5800000 - y - 8, 400000 + x + 8, 5800000 - y) for x in range(4, 70, 12) for y in (5, 45)
    ]
    frame = gpd.GeoDataFrame({"kind": ["house", None] * 6}, geometry=boxes, crs="EPSG:32633")
    frame.to_file(tmp_path / "roofs.gpkg")
    found = inspect_data([str(tmp_path / "town.tif")], [str(tmp_path / "roofs.gpkg")], "town")
    assert [spec["name"] for spec in found.data["classes"]] == ["background", "house"]
    assert found.data["label"] == {"kind": "vector", "attribute": "kind", "ignore": ["null"]}
    frame[["geometry"]].to_file(tmp_path / "roof.geojson")
    found = inspect_data([str(tmp_path / "town.tif")], [str(tmp_path / "roof.geojson")], "town")
    assert [spec["name"] for spec in found.data["classes"]] == ["background", "roof"]
    assert found.data["label"] == {"kind": "vector"}
    assert found.data["split"]["by"] == "block"


@pytest.mark.parametrize(
    ("images", "labels", "lonely"),
    [
        (["a1.tif", "a2.tif"], ["a2.png", "a1.png"], 0),
        (["K\u00f6ln.tif", "Bonn.tif"], ["Ko\u0308ln.tif", "Bonn.tif"], 0),
        (["a_1_image.tif", "a_2_image.tif"], ["a_1_mask.tif", "a_2_mask.tif"], 0),
        (["img_01.tif", "img_11.tif"], ["lbl_01.tif", "lbl_11.tif"], 0),
        (["sat-1-rgb.tif", "sat-2-rgb.tif"], ["gt-1-ids.tif", "gt-2-ids.tif"], 0),
        (["town_ortho.tif"], ["town_truth.tif"], 0),
        (["east.tif"], ["labels.tif"], 0),
        (["a1.tif", "a2.tif", "a3.tif"], ["a1.tif", "a2.tif"], 1),
    ],
)
def test_names_are_paired(images: list[str], labels: list[str], lonely: int) -> None:
    assert len(pair_pattern(images, labels)[1]) == lonely


def test_rasters_and_polygons_together_are_refused(tmp_path: Path, inspected: Callable[..., Inspection]) -> None:
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=4326).to_file(_folder(tmp_path) / "a.geojson")
    with pytest.raises(UserError, match="two kinds"):
        inspected(ids, ".png")


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "labels").mkdir()
    return tmp_path / "labels"
