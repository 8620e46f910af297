"""Labels as people have them: each ends as the right classes, or as a sentence with file, finding and key."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from rasterio.crs import CRS
from rasterio.transform import from_origin

from idgbr.config.load import load_experiment
from idgbr.distributed.data import prepare_data

ROOT = Path(__file__).parents[2]
SIDE, TILES = 64, 3
UTM = "EPSG:32633"


def truth(number: int) -> np.ndarray:
    """(1, H, W) ids: two buildings a tile, and ground."""
    ids = np.zeros((1, SIDE, SIDE), np.uint8)
    ids[0, 8:24, 8 + number : 30] = 1
    ids[0, 36:60, 34:56] = 1
    return ids


def box(number: int, place: str = UTM) -> list[shapely.Geometry]:
    """The same buildings as polygons in metres."""
    left, top = 500000 + 1000 * number, 5000000
    corners = ((8 + number, 8, 30, 24), (34, 36, 56, 60))
    return [shapely.box(left + a / 2, top - d / 2, left + c / 2, top - b / 2) for a, b, c, d in corners]


BUILDINGS = sum(int(truth(i).sum()) for i in range(TILES))


def write(path: Path, pixels: np.ndarray, x: float | None = None, colormap: Any = None, **profile: Any) -> None:
    place = {} if x is None else {"crs": UTM, "transform": from_origin(x, 5000000, 0.5, 0.5)}
    size = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **{"driver": "GTiff", **size, **place, **profile}) as file:
        file.write(pixels)
        if colormap:
            file.write_colormap(1, colormap)


def tiles(folder: Path, **profile: Any) -> None:
    rng = np.random.default_rng(0)
    for i in range(TILES):
        image = (60 + 120 * truth(i) + rng.integers(0, 30, (3, SIDE, SIDE))).astype(np.uint8)
        write(folder / f"images/t{i}.tif", image, 500000 + 1000 * i, **profile)


def rasters(change: Callable[[np.ndarray], np.ndarray] = lambda ids: ids, end: str = ".tif", **profile: Any) -> Any:
    def make(folder: Path) -> None:
        for i in range(TILES):
            write(
                folder / f"labels/t{i}{end}", change(truth(i)), 500000 + 1000 * i if end == ".tif" else None, **profile
            )

    return make


def frame(numbers: range, **columns: list[Any]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=[b for i in numbers for b in box(i)], crs=UTM)


def polygons(folder: Path) -> None:
    """A file a tile; nothing was drawn on the last one."""
    (folder / "labels").mkdir()
    for i in range(TILES):
        drawn = frame(range(i, i + 1), kind=["building"] * 2)
        (drawn if i < TILES - 1 else drawn.iloc[:0]).to_crs(4326).to_file(folder / f"labels/t{i}.geojson")


def layers(folder: Path) -> None:
    (folder / "labels").mkdir()
    area = gpd.GeoDataFrame(geometry=[shapely.box(500000, 4999000, 503000, 5000000)], crs=UTM)
    area.to_file(folder / "labels/all.gpkg", layer="areas")
    frame(range(TILES)).to_file(folder / "labels/all.gpkg", layer="buildings")


def geodatabase(folder: Path) -> None:
    (folder / "labels").mkdir()
    frame(range(TILES)).to_file(folder / "labels/all.gdb", driver="OpenFileGDB")


def one_file(**columns: list[Any]) -> Any:
    def make(folder: Path) -> None:
        (folder / "labels").mkdir()
        frame(range(TILES), **columns).to_file(folder / "labels/all.gpkg")

    return make


def city(shift: float = 0.0) -> Any:
    """One label raster for all tiles, which lie far apart in it."""

    def make(folder: Path) -> None:
        whole = np.zeros((1, SIDE + 20, 2 * 1000 * (TILES - 1) + SIDE), np.uint8)
        for i in range(TILES):
            whole[:, 10 : 10 + SIDE, 2000 * i : 2000 * i + SIDE] = truth(i)
        place = {"crs": UTM, "transform": from_origin(500000 + shift, 5000005, 0.5, 0.5)}
        write(folder / "labels/city.tif", whole, **place)

    return make


def coloured(ids: np.ndarray) -> np.ndarray:
    table = np.array([[200, 200, 160], [220, 40, 40]])
    return table[ids[0]].transpose(2, 0, 1)


def experiment(folder: Path, label: dict[str, Any]) -> Path:
    tree = {
        "data": {
            "name": "case",
            "source": {"kind": "folder", "images": [str(folder / "images")], "labels": [str(folder / "labels")]},
            "classes": [{"name": "ground", "colour": "#c8c8a0"}, {"name": "building", "colour": "#dc2828"}],
            "label": label,
            "split": {"by": "block", "block": 32, "select": 0.2, "test": 0.2, "seed": 1},
        },
        "resources": {"storage": str(folder / "runs")},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
    }
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def job(capsys: Any, monkeypatch: pytest.MonkeyPatch, name: str, *words: object) -> dict[str, Any]:
    monkeypatch.setattr("sys.argv", [name, *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / f"jobs/{name}.py"), run_name="__main__")
    printed = capsys.readouterr()
    last = json.loads(printed.out.splitlines()[-1])
    assert last["exit_code"] == ended.value.code, printed.err
    return {**last, "text": printed.out + printed.err}


def mixed_colours(ids: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 250, (1, SIDE, SIDE))
    return np.where(ids > 0, noise, 0).astype(np.uint8)


VECTOR = {"kind": "vector"}
REFUSED: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "0 and 255": (rasters(lambda i: i * 255), {}, ["labels/t0.tif", "building (id 1)", "255 (", "data.label.nonzero"]),
    "nodata tag 0": (rasters(nodata=0), {}, ["t0.tif", "ground (id 0)", "nodata tag", "data.label.values"]),
    "1 and 2": (rasters(lambda i: i + 1), {}, ["t0.tif", "value 2 is no class", "data.label.values"]),
    "1 ignored": (rasters(), {"ignore": [1, 255]}, ["building (id 1)", "data.label.nonzero"]),
    "lossy, no peaks": (rasters(mixed_colours, ".jpg", driver="JPEG"), {}, ["t0.jpg", "lossy", "data.label.threshold"]),
    "colours as ids": (
        rasters(lambda i: coloured(i).astype(np.uint8), photometric="RGB"),
        {},
        ["t0.tif", "#dc2828", "data.label.kind"],
    ),
    "another colour": (
        rasters(lambda i: (coloured(i) // 2).astype(np.uint8)),
        {"kind": "colour"},
        ["#6e1414", "data.label.ignore_colours"],
    ),
    "layers": (layers, VECTOR, ["all.gpkg", "areas, buildings", "data.label.layer"]),
    "no such layer": (layers, {**VECTOR, "layer": "roofs"}, ["areas, buildings", "data.label.layer"]),
    "no value": (
        one_file(kind=["building"] * 5 + [None]),
        {**VECTOR, "attribute": "kind"},
        ["all.gpkg", "null", "data.label.ignore"],
    ),
    "other words": (
        one_file(kind=["house"] * 6),
        {**VECTOR, "attribute": "kind"},
        ["kind", "house", "data.label.values: {house: ID}"],
    ),
    "label elsewhere": (city(1e6), {}, ["city.tif", "outside of the label file", "georeferences"]),
    "rare class unnamed": (
        rasters(lambda i: i * 0),
        {"allow_missing": ["roof"]},
        ["data", "allow_missing", "ground, building"],
    ),
    "one pixel more": (rasters(lambda i: np.pad(i, ((0, 0), (0, 1), (0, 0)))), {}, ["t0.tif", "65 x 64", "size_slack"]),
}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("case", REFUSED)
def test_labels_that_would_be_read_wrongly_end_training_before_it_begins(
    case: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, label, words = REFUSED[case]
    tiles(tmp_path)
    make(tmp_path)
    said = job(capsys, monkeypatch, "train", "--config", experiment(tmp_path, label))
    assert said["exit_code"] == 2, said["text"]
    for word in words:
        assert word in said["message"], said["message"]
    assert not (tmp_path / "mlflow.db").exists()


INDEXED = {i: ((200, 200, 160, 255), (220, 40, 40, 255))[i // 300] for i in (0, 300)}
READ: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (rasters(), {}),
    "nonzero": (rasters(lambda i: i * 255), {"nonzero": True}),
    "nonzero with a nodata tag": (rasters(nodata=0), {"nonzero": True}),
    "colour for any object": (
        rasters(lambda i: (i * np.array([0, 0, 200])[:, None, None]).astype(np.uint8)),
        {"nonzero": True},
    ),
    "nodata tag mapped": (rasters(nodata=0), {"values": {0: 0, 1: 1}}),
    "jpeg": (rasters(lambda i: i * 255, ".jpg", driver="JPEG", quality=75), {}),
    "jpeg, nonzero": (rasters(lambda i: i * 255, ".jpg", driver="JPEG", quality=75), {"nonzero": True}),
    "threshold": (rasters(lambda i: np.where(i, 200, 30).astype(np.uint8)), {"threshold": 100}),
    "16-bit palette": (
        rasters(lambda i: i.astype(np.uint16) * 300, photometric="PALETTE", colormap=INDEXED),
        {"kind": "colour"},
    ),
    "float colours": (rasters(lambda i: (coloured(i) / 255).astype(np.float32)), {"kind": "colour"}),
    "16-bit colours": (rasters(lambda i: (coloured(i) * 257).astype(np.uint16)), {"kind": "colour"}),
    "layer": (layers, {**VECTOR, "layer": "buildings"}),
    "geodatabase": (geodatabase, VECTOR),
    "one vector file": (one_file(), VECTOR),
    "words mapped": (one_file(kind=["house"] * 6), {**VECTOR, "attribute": "kind", "values": {"House": 1}}),
    "one raster by place": (city(), {}),
    "another heights' datum": (rasters(crs=CRS.from_user_input("EPSG:32633+5773").to_wkt()), {}),
    "one pixel more": (rasters(lambda i: np.pad(i, ((0, 0), (0, 1), (0, 1)))), {"size_slack": 1}),
}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("case", READ)
def test_labels_that_are_read_rightly(case: str, tmp_path: Path) -> None:
    make, label = READ[case]
    tiles(tmp_path)
    make(tmp_path)
    data = prepare_data(load_experiment(experiment(tmp_path, label)).data, tmp_path / "data")
    assert [sum(region.histogram[k] for region in data.prepared) for k in (0, 1)] == [
        TILES * SIDE**2 - BUILDINGS,
        BUILDINGS,
    ]


@pytest.mark.usefixtures("ray_session")
def test_what_loses_its_label_is_said_with_its_reason(tmp_path: Path, capsys: Any) -> None:
    tiles(tmp_path)
    rasters(lambda i: np.where(np.arange(SIDE) < 16, 255, i).astype(np.uint8))(tmp_path)
    prepare_data(load_experiment(experiment(tmp_path, {})).data, tmp_path / "data")
    count = TILES * SIDE * 16
    assert f"{count:,} of {TILES * SIDE**2:,} valid pixels (25.00%): no label: value 255" in capsys.readouterr().out


@pytest.mark.usefixtures("ray_session")
def test_a_tile_without_polygons_is_background_and_a_rare_class_may_pass(tmp_path: Path, capsys: Any) -> None:
    tiles(tmp_path)
    polygons(tmp_path)
    config = experiment(tmp_path, {"kind": "vector", "attribute": "kind"})
    data = prepare_data(load_experiment(config).data, tmp_path / "data")
    buildings = sum(int(truth(i).sum()) for i in range(TILES - 1))
    assert sum(region.histogram[1] for region in data.prepared) == buildings
    for path in (tmp_path / "labels").glob("*.geojson"):
        frame(range(0)).to_crs(4326).to_file(path)
    label = {"data.label.attribute": "", "data.label.allow_missing": ["building"]}
    data = prepare_data(load_experiment(config, label).data, tmp_path / "data")
    assert sum(region.histogram[1] for region in data.prepared) == 0
