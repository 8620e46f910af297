"""Labels as index raster, colour raster and polygons."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from idgbr import IGNORE
from idgbr.config.data import ClassSpec, LabelConfig
from idgbr.errors import UserError
from idgbr.raster.grid import Window
from idgbr.raster.labels import label_reader, read_label
from idgbr.raster.scene import Scene

Make = Callable[..., str]
CLASSES = [ClassSpec(name=n, colour=c) for n, c in (("ground", "#ffffff"), ("roof", "#0000ff"), ("tree", "#00ff00"))]
WINDOW = Window(0, 0, 70, 90)


@pytest.fixture
def image(make: Make, pixels: np.ndarray) -> Scene:
    return Scene(make("image.tif", pixels))


@pytest.fixture
def ids() -> np.ndarray:
    ids = np.random.default_rng(1).integers(0, 3, (1, 70, 90), dtype=np.uint8)
    ids[0, :4] = 255
    return ids


def test_index_labels_follow_the_scenes_rectangle(make: Make, image: Scene, ids: np.ndarray) -> None:
    path = make("label.tif", ids)
    np.testing.assert_array_equal(read_label(path, image, CLASSES, LabelConfig(), WINDOW), ids[0])
    reader = label_reader(path, image.crop(Window(10, 20, 30, 40)), CLASSES, LabelConfig())
    np.testing.assert_array_equal(reader.explain(Window(5, 5, 10, 10))[0], ids[0, 15:25, 25:35])
    assert (reader.explain(Window(-5, 0, 5, 5))[0] == IGNORE).all()


def test_index_values_are_mapped(make: Make, image: Scene, ids: np.ndarray) -> None:
    raw = ids.astype(np.uint16) * 100
    raw[ids == 255] = 9
    config = LabelConfig(values={0: 0, 100: 1, 200: 2}, ignore=[9])
    label = read_label(make("label.tif", raw, nodata=0), image, CLASSES, config, WINDOW)
    np.testing.assert_array_equal(label, ids[0])
    binary = np.where(ids == 1, 255, 0).astype(np.uint8)
    label = read_label(make("binary.tif", binary), image, CLASSES, LabelConfig(nonzero=True), WINDOW)
    np.testing.assert_array_equal(label, (ids[0] == 1).astype(np.uint8))


def test_nodata_of_an_index_label_is_ignored_unless_mapped(make: Make, image: Scene, ids: np.ndarray) -> None:
    label = read_label(make("label.tif", ids, nodata=2), image, CLASSES, LabelConfig(), WINDOW)
    np.testing.assert_array_equal(label, np.where(ids[0] == 2, IGNORE, ids[0]))


def test_unknown_id_names_value_file_and_count(make: Make, image: Scene, ids: np.ndarray) -> None:
    ids[0, 30, 30:37] = 17
    with pytest.raises(UserError, match=r"label\.tif: value 17 is no class, 7 px"):
        read_label(make("label.tif", ids), image, CLASSES, LabelConfig(), WINDOW)


@pytest.mark.parametrize("palette", [False, True])
def test_colour_labels(make: Make, image: Scene, ids: np.ndarray, palette: bool) -> None:
    table = np.zeros((256, 3), np.uint8)
    table[:3] = [(255, 255, 255), (0, 0, 255), (0, 255, 0)]
    if palette:
        path = make("label.tif", ids, colormap={i: (*map(int, table[i]), 255) for i in (0, 1, 2, 255)})
    else:
        path = make("label.tif", table[ids[0]].transpose(2, 0, 1))
    config = LabelConfig(kind="colour")
    np.testing.assert_array_equal(read_label(path, image, CLASSES, config, WINDOW), ids[0])


def test_unknown_colour_names_colour_file_and_count(make: Make, image: Scene, ids: np.ndarray) -> None:
    rgb = np.zeros((3, 70, 90), np.uint8)
    rgb[:, 50, :5] = np.array([[18], [52], [86]])
    with pytest.raises(UserError, match=r"label\.tif: colour #123456 is no class, 5 px"):
        read_label(make("label.tif", rgb), image, CLASSES, LabelConfig(kind="colour"), WINDOW)
    with pytest.raises(UserError, match="without a colour table"):
        read_label(make("index.tif", ids), image, CLASSES, LabelConfig(kind="colour"), WINDOW)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"crs": "EPSG:32637"}, "EPSG:32636.*EPSG:32637"), ({"col": 3}, "shifted by up to 3 px")],
)
def test_mismatch_names_both_sides(make: Make, image: Scene, ids: np.ndarray, change: dict, words: str) -> None:
    with pytest.raises(UserError, match=rf"label\.tif.*image\.tif.*{words}"):
        read_label(make("label.tif", ids, **change), image, CLASSES, LabelConfig(), WINDOW)
    with pytest.raises(UserError, match=r"70 x 90.*60 x 90"):
        read_label(make("short.tif", ids[:, :60]), image, CLASSES, LabelConfig(), WINDOW)
    bare = make("bare.tif", ids, crs=None, transform=None)
    np.testing.assert_array_equal(read_label(bare, image, CLASSES, LabelConfig(), WINDOW), ids[0])


def test_labels_of_a_resampled_scene_stay_ids(make: Make, image: Scene) -> None:
    ids = np.zeros((1, 70, 90), np.uint8)
    ids[:, :, 46:] = 2
    coarse = Scene(image.uri, resample_to=1.0)
    label = read_label(make("label.tif", ids), coarse, CLASSES, LabelConfig(), Window(0, 0, 35, 45))
    np.testing.assert_array_equal(label[0], np.repeat([0, 2], [23, 22]))


def _vector(path: Path, **columns: list) -> str:
    """A roof on rows 10-20, columns 20-40, and a tree on rows 30-40, columns 60-80, in longitude and latitude."""
    boxes = [shapely.box(500010, 99990, 500020, 99995), shapely.box(500030, 99980, 500040, 99985)]
    gpd.GeoDataFrame(columns, geometry=boxes, crs="EPSG:32636").to_crs("EPSG:4326").to_file(path)
    return str(path)


def test_polygons_are_burnt(image: Scene, tmp_path: Path) -> None:
    expected = np.zeros((70, 90), np.uint8)
    expected[10:20, 20:40], expected[30:40, 60:80] = 1, 2
    for name, values in (("a.geojson", ["roof", "Tree"]), ("b.gpkg", [1, 2])):
        path = _vector(tmp_path / name, kind=values)
        config = LabelConfig(kind="vector", attribute="kind")
        np.testing.assert_array_equal(read_label(path, image, CLASSES, config, WINDOW), expected)
    reader = label_reader(path, image.crop(Window(5, 5, 30, 70)), CLASSES, LabelConfig(kind="vector", burn=2))
    part, _ = reader.explain(Window(-5, 0, 40, 70))
    assert (part[:5] == IGNORE).all()
    assert (part[35:] == IGNORE).all()
    np.testing.assert_array_equal(part[5:35], np.where(expected[5:35, 5:75] > 0, 2, 0))


def test_bad_vectors_are_refused(make: Make, image: Scene, tmp_path: Path, pixels: np.ndarray) -> None:
    path = _vector(tmp_path / "a.geojson", kind=["roof", "shed"])
    with pytest.raises(UserError, match="'kind' is shed in 1 polygon"):
        read_label(path, image, CLASSES, LabelConfig(kind="vector", attribute="kind"), WINDOW)
    with pytest.raises(UserError, match=r"no attribute 'class'.*kind"):
        read_label(path, image, CLASSES, LabelConfig(kind="vector", attribute="class"), WINDOW)
    far = Scene(make("far.tif", pixels, col=10**5))
    with pytest.raises(UserError, match="lies elsewhere"):
        read_label(path, far, CLASSES, LabelConfig(kind="vector"), WINDOW)
    bare = Scene(make("bare.tif", pixels, crs=None, transform=None))
    with pytest.raises(UserError, match=r"EPSG:4326.*none"):
        read_label(path, bare, CLASSES, LabelConfig(kind="vector"), WINDOW)
    with pytest.raises(UserError, match="no such file"):
        read_label(str(tmp_path / "no.gpkg"), image, CLASSES, LabelConfig(kind="vector"), WINDOW)


def test_kampalas_polygons_agree_with_its_mask(data_dir: Path) -> None:
    folder = data_dir / "kampala"
    image = Scene(str(folder / "kampala_blockA_image.tif"))
    classes = [ClassSpec(name="other", colour="#000000"), ClassSpec(name="building", colour="#ff0000")]
    window = Window(500, 500, 1000, 1000)
    mask = read_label(str(folder / "kampala_blockA_mask.tif"), image, classes, LabelConfig(), window)
    config = LabelConfig(kind="vector", attribute="class")
    burnt = read_label(str(folder / "kampala_blockA_labels.geojson"), image, classes, config, window)
    assert (mask != burnt)[mask != IGNORE].mean() < 0.002


def strip(ids: np.ndarray, value: float, kind: str) -> np.ndarray:
    """Ids of 0 and 1, with another value in the first ten columns: 700 pixels."""
    out = (ids % 255 == 1).astype(kind)
    out[:, :, :10] = value
    return out


@pytest.mark.parametrize(
    ("value", "kind", "options", "label", "becomes", "note"),
    [
        (np.nan, "float32", {}, {}, IGNORE, "no label: transparent, masked or NaN"),
        (np.nan, "float32", {}, {"values": {0: 0, 1: 1}}, IGNORE, "no label: transparent, masked or NaN"),
        (np.nan, "float32", {}, {"nonzero": True}, 0, "NaN in the label file became class 0"),
        (-9999, "int16", {"nodata": -9999}, {"nonzero": True}, IGNORE, "no label: value -9999 is the label file's"),
        (-1, "int16", {}, {"nonzero": True}, 1, "value -1 became class 1"),
        (255, "uint8", {}, {"nonzero": True}, 1, "value 255 became class 1"),
        (7, "uint8", {}, {"nonzero": True, "ignore": [7]}, IGNORE, "no label: value 7 (data.label.ignore)"),
        (-5, "int16", {"nodata": -5}, {"threshold": 1}, IGNORE, "no label: value -5 is the label file's"),
    ],
)
def test_values_that_are_no_class_are_counted_with_their_reason(
    make: Make,
    image: Scene,
    ids: np.ndarray,
    value: float,
    kind: str,
    options: dict,
    label: dict,
    becomes: int,
    note: str,
) -> None:
    path = make("label.tif", strip(ids, value, kind), **options)
    found, notes = label_reader(path, image, CLASSES[:2], LabelConfig.model_validate(label)).explain(WINDOW)
    np.testing.assert_array_equal(found[:, 10:], (ids[0, :, 10:] % 255 == 1))
    assert (found[:, :10] == becomes).all()
    assert [int(where.sum()) for text, where in notes.items() if note in text] == [700], notes.keys()


def test_what_a_colour_table_makes_transparent_has_no_label(make: Make, image: Scene, ids: np.ndarray) -> None:
    colours = {0: (255, 255, 255, 255), 1: (0, 0, 255, 255), 2: (0, 255, 0, 255), 255: (0, 0, 255, 0)}
    colours[254] = (0, 0, 0, 0)  # a single transparent entry GDAL reports as nodata
    path = make("label.png", ids, driver="PNG", crs=None, transform=None, colormap=colours)
    found, notes = label_reader(path, image, CLASSES, LabelConfig(kind="colour")).explain(WINDOW)
    np.testing.assert_array_equal(found, ids[0])
    assert any("transparent" in text and where.sum() == (ids == 255).sum() for text, where in notes.items())


def _features(path: Path, shapes: list[shapely.Geometry]) -> str:
    """A GeoJSON that names no CRS, with coordinates as they are."""
    features = [{"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(s)} for s in shapes]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


def test_polygons_whose_coordinates_are_misplaced(image: Scene, tmp_path: Path) -> None:
    roof = shapely.box(500010, 99990, 500020, 99995)
    degrees = gpd.GeoSeries([roof], crs="EPSG:32636").to_crs("EPSG:4326")[0]
    swapped = shapely.transform(degrees, lambda points: points[:, ::-1])
    lines = shapely.GeometryCollection([degrees, shapely.boundary(degrees)])
    cases = (
        ([roof], r"500010, 99990 to .*EPSG:4326 has degrees.*ogr2ogr -a_srs"),
        ([swapped], "x and y of its coordinates are swapped"),
        ([degrees, shapely.box(-180, -90, 180, 90)], r"1 polygon\(s\) on the image reach beyond"),
        ([lines], "holds LineString"),
    )
    for number, (shapes, words) in enumerate(cases):
        with pytest.raises(UserError, match=words):
            read_label(
                _features(tmp_path / f"{number}.geojson", shapes), image, CLASSES, LabelConfig(kind="vector"), WINDOW
            )
    bow = shapely.Polygon([(500010, 99990), (500020, 99995), (500020, 99990), (500010, 99995)])
    gpd.GeoSeries([bow, roof], crs="EPSG:32636").to_frame("geometry").to_parquet(tmp_path / "a.parquet")
    label = read_label(str(tmp_path / "a.parquet"), image, CLASSES, LabelConfig(kind="vector"), WINDOW)
    assert (label[10:20, 20:40] == 1).all() and (label == 1).sum() == 200


def test_an_image_without_a_place_on_earth_and_polygons_with_one(
    make: Make, pixels: np.ndarray, tmp_path: Path
) -> None:
    image = Scene(make("local.tif", pixels, crs='LOCAL_CS["town",UNIT["metre",1]]'))
    with pytest.raises(UserError, match=r"EPSG:4326 into the image's, town"):
        read_label(_vector(tmp_path / "a.gpkg"), image, CLASSES, LabelConfig(kind="vector"), WINDOW)


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("a.tif", "", "is empty"),
        ("a.tif", "<!DOCTYPE html><html>404</html>", "web page"),
        ("a.tif", "version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        ("a.txt", "0 0.5 0.5 0.2 0.2\n", "YOLO"),
        ("a.json", '{"images": [], "annotations": []}', "COCO"),
        ("a.json", '{"shapes": [], "imagePath": "a.png"}', "LabelMe"),
        ("a.xml", "<annotation><object/></annotation>", "Pascal VOC"),
        ("a.json", "[1, 2]", "no GeoJSON"),
    ],
)
def test_files_that_are_no_labels_are_called_by_their_name(
    image: Scene, tmp_path: Path, name: str, body: str, words: str
) -> None:
    (tmp_path / name).write_text(body)
    kind = "vector" if name.endswith("json") or name.endswith("xml") else "index"
    with pytest.raises(UserError, match=words):
        label_reader(str(tmp_path / name), image, CLASSES, LabelConfig(kind=kind))


def test_a_png_that_is_cut_off_is_refused(make: Make, ids: np.ndarray) -> None:
    """GDAL reads some of these without an error, and fills the rest with what memory holds."""
    path = Path(make("label.png", ids, driver="PNG", crs=None, transform=None))
    body = path.read_bytes()
    path.write_bytes(body[: len(body) // 2])
    with pytest.raises(UserError, match=r"label\.png: the PNG is cut off"):
        Scene(str(path)).grid()


def test_a_class_that_is_named_by_a_number_is_no_id(image: Scene, tmp_path: Path) -> None:
    codes = [ClassSpec(name=n, colour="#ffffff") for n in ("1", "2")]
    path = _vector(tmp_path / "a.gpkg", code=[1, 2])
    label = read_label(path, image, codes, LabelConfig(kind="vector", attribute="code", background=IGNORE), WINDOW)
    assert label[15, 30] == 0 and label[35, 70] == 1
