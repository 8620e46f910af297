"""Imagery as people have it, through jobs/refine.py: a right map, or a sentence that names file, finding and flag."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from painted_scenes import GRAD, LOCAL, UTM, H, W, corners, framed, mosaic, near_infrared, painted, write
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from idgbr import IGNORE
from idgbr.cli import parse_job
from idgbr.config.data import ClassSpec, DataConfig, FolderSource, SplitConfig
from idgbr.distributed.data import prepare_data
from idgbr.distributed.value_range import fit_values
from idgbr.errors import UserError
from idgbr.models.description import load_spec
from idgbr.raster.grid import Window
from idgbr.raster.scene import Scene
from idgbr.raster.values import measure_range
from jobs.refine import Flags, main

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def model(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The toy model as one that learnt `painted` imagery of red, green and blue."""
    folder = tmp_path_factory.mktemp("learnt") / "model"
    shutil.copytree(toy_model, folder)
    scene = Scene(str(write(folder.parent / "learnt.tif", painted(5))), bands=(1, 2, 3))
    spec = json.loads((folder / "model.json").read_text())
    values = measure_range([scene], "uint8", scene.colours())
    assert values is not None
    spec["values"] = {"dtype": values.dtype, "quantiles": values.quantiles, "colours": values.colours}
    (folder / "model.json").write_text(json.dumps(spec))
    return str(folder)


def job(*words: object) -> dict[str, Any]:
    flags, _ = parse_job(Flags, [*map(str, words), "--cpus-per-worker", "0.5", "--workers", "1"])
    return dict(main(flags))


def refused(model: str, path: Path, folder: Path, *words: object) -> str:
    with pytest.raises(UserError) as caught:
        job("--model", model, "--input", path, "--output", folder / "maps", *words)
    assert not (folder / "maps").exists()
    return str(caught.value)


BGR = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
OPAQUE_NOWHERE = np.concatenate([painted(), np.zeros((1, H, W), np.uint8)])
NO_MAP: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], tuple[str, ...]]] = {
    "12 bit for 8 bit": (
        lambda f: write(f / "a.tif", painted().astype(np.uint16) * 16), (), ("uint16", "uint8", "--value-range")
    ),
    "reflectance in floats": (
        lambda f: write(f / "a.tif", painted().astype(np.float32) / 255), (), ("float32", "--value-range", "match")
    ),
    "ground control points": (
        lambda f: write(f / "a.tif", painted(), gcps=corners(0)), (), ("4 ground", "--gcps warp")
    ),
    "complex floats": (lambda f: write(f / "a.tif", painted().astype(np.complex64)), (), ("complex64", "amplitude")),
    "complex integers": (
        lambda f: write(f / "a.tif", painted()[:1].astype(np.complex64), dtype="complex_int16"),
        (),
        ("complex_int16", "amplitude"),
    ),
    "blue, green, red": (
        lambda f: write(f / "a.tif", painted()[::-1], photometric="MINISBLACK", colours=BGR),
        (),
        ("blue, green, red", "--bands-from"),
    ),
    "a part of a mosaic gone": (lambda f: mosaic(f, 0), (), ("t1.tif", "33.33%", "--max-unreadable")),
    "alpha that is 0 throughout": (
        lambda f: write(f / "a.tif", OPAQUE_NOWHERE, photometric="RGB", alpha="YES"),
        (),
        ("not one valid pixel", "--alpha"),
    ),
    "two bands for three": (
        lambda f: write(f / "a.tif", painted()[:2]), ("--bands-from", "1,2"), ("names 2 band(s)", "reads 3")
    ),
    "one band": (lambda f: write(f / "a.tif", painted()[:1]), (), ("no band 2", "--bands-from")),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_MAP)
def test_what_cannot_be_mapped_is_refused_before_anything_runs(model: str, tmp_path: Path, case: str) -> None:
    make, words, expected = NO_MAP[case]
    path = make(tmp_path)
    message = refused(model, path, tmp_path, *words)
    assert str(path) in message or "--bands-from: names" in message
    assert all(word in message for word in expected), message


GRAD_PLACE = from_origin(8.0, 52.0, 0.5 / GRAD / 0.68, 0.5 / GRAD)
PALETTE = {i: (i, 255 - i, i // 2, 255) for i in range(256)}
MAPPED: dict[str, Callable[[Path, int], Path]] = {
    "north.tif": lambda f, i: write(f, painted(), i),
    "local.tif": lambda f, i: write(f, painted(), crs=LOCAL, transform=from_origin(0, H / 2, 0.5, 0.5)),
    "local_far.tif": lambda f, i: write(f, painted(), crs=LOCAL, transform=from_origin(9000, 2000, 0.5, 0.5)),
    "grads.tif": lambda f, i: write(f, painted(), crs="EPSG:4807", transform=GRAD_PLACE),
    "other_registry.tif": lambda f, i: write(f, painted(), i, crs="EPSG:10792"),
    "compound.tif": lambda f, i: write(f, painted(), i, crs=CRS.from_user_input("EPSG:32633+5773")),
    "southup.tif": lambda f, i: write(f, painted(), transform=Affine(0.5, 0, 560000, 0, 0.5, 5300000)),
    "palette.tif": lambda f, i: write(f, painted()[:1], i, photometric="PALETTE", table=PALETTE),
    "infrared.tif": lambda f, i: write(f, near_infrared(painted()), i, photometric="RGB", alpha="YES"),
    "blurred.tif": lambda f, i: write(
        f, framed(painted()), i, nodata=0, compress="JPEG", jpeg_quality=75, photometric="YCBCR"
    ),
    "collar.tif": lambda f, i: write(f, framed(painted()), i),
    "names.tif": lambda f, i: write(f, painted(), i, photometric="MINISBLACK"),
    "one.tif": lambda f, i: write(f, painted(), i),
    "one.png": lambda f, i: write(f, painted(1)[:, :64], driver="PNG", crs=None, transform=None, photometric=None),
}
DOUBTS = {
    "palette.tif": "colour table, whose red, green and blue are read",
    "infrared.tif": "band 4 is tagged alpha but holds imagery",
    "blurred.tif": "--nodata-tolerance",
    "collar.tif": "are 0 in every band and count as ground",
    "one.png": "has no ground sample distance",
}


@pytest.fixture(scope="module")
def mapped(ray_session: None, model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """All of `MAPPED` through one job, with polygons; what it printed."""
    folder = tmp_path_factory.mktemp("mapped")
    for number, (name, make) in enumerate(MAPPED.items()):
        make(folder / "images" / name, number)
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("rich.console.Console.print", lambda self, *parts, **_: lines.append(" ".join(map(str, parts))))
        done = job("--model", model, "--input", folder / "images", "--output", folder / "maps", "--polygons", "gpkg")
    return folder, done, "\n".join(lines)


def test_no_two_maps_share_a_name(mapped: tuple[Path, dict[str, Any], str]) -> None:
    folder, done, _ = mapped
    assert len(set(done["maps"])) == len(MAPPED) == len(list((folder / "maps").glob("*.tif")))
    shapes = {rasterio.open(folder / "maps" / f"one_{kind}.tif").shape for kind in ("tif", "png")}
    assert shapes == {(H, W), (64, W)}


@pytest.mark.parametrize("name", [name for name in MAPPED if not name.startswith("one.")])
def test_every_valid_pixel_is_mapped_in_its_place(mapped: tuple[Path, dict[str, Any], str], name: str) -> None:
    folder, _, printed = mapped
    with rasterio.open(folder / "images" / name) as image, rasterio.open(folder / "maps" / name) as out:
        assert out.shape == image.shape and out.transform.almost_equals(image.transform)
        assert CRS.from_wkt(out.crs.to_wkt()) == CRS.from_wkt(image.crs.to_wkt())
        ids, pixels = out.read(1), image.read()
    valid = pixels.any(axis=0) if name == "blurred.tif" else np.ones(image.shape, bool)
    np.testing.assert_array_equal(ids != IGNORE, valid)
    assert DOUBTS.get(name, "") in "\n".join(line for line in printed.splitlines() if name in line)
    if name not in DOUBTS:
        assert name not in printed


@pytest.fixture(scope="module")
def settled(
    ray_session: None, model: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], str]:
    """What is refused or doubtful, with the flags that settle it."""
    folder = tmp_path_factory.mktemp("settled")
    images = folder / "images"
    write(images / "plain.tif", painted(5), 1)
    write(images / "deep.tif", painted(5).astype(np.uint16) * 16, 2)
    write(images / "points.tif", painted(5), gcps=corners(3))
    write(images / "blurred.tif", framed(painted(5)), 4, nodata=0, compress="JPEG", photometric="YCBCR")
    write(images / "infrared.tif", near_infrared(painted(5)), 5, photometric="RGB", alpha="YES")
    mosaic(images, 6)
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("rich.console.Console.print", lambda self, *parts, **_: lines.append(" ".join(map(str, parts))))
        words = ("--value-range", "match", "--gcps", "warp", "--nodata-tolerance", 24, "--alpha", "mask")
        done = job("--model", model, "--input", images, "--output", folder / "maps", "--max-unreadable", 1, *words)
    return folder, done, "\n".join(lines)


def ids_of(folder: Path, name: str) -> np.ndarray:
    with rasterio.open(folder / "maps" / name) as file:
        return np.asarray(file.read(1))


def test_matched_values_give_the_map_of_the_plain_scene(settled: tuple[Path, dict[str, Any], str]) -> None:
    folder, _, printed = settled
    assert (ids_of(folder, "deep.tif") == ids_of(folder, "plain.tif")).mean() > 0.98
    assert "deep.tif: band" in printed and "its quantiles are mapped to the model's" in printed


def test_ground_control_points_give_the_map_a_place(settled: tuple[Path, dict[str, Any], str]) -> None:
    folder, _, printed = settled
    with rasterio.open(folder / "maps" / "points.tif") as out:
        assert out.crs == CRS.from_user_input(UTM)
        assert out.transform.almost_equals(from_origin(503000, 5400000, 0.5, 0.5), 1e-3)
        assert (out.read(1) != IGNORE).mean() > 0.97
    assert "points.tif: is read warped by its ground control points into EPSG:32633" in printed


def test_what_a_flag_takes_away_is_printed(settled: tuple[Path, dict[str, Any], str]) -> None:
    folder, _, printed = settled
    np.testing.assert_array_equal(ids_of(folder, "infrared.tif") == IGNORE, np.arange(H)[:, None] + np.zeros(W) >= 60)
    blurred = ids_of(folder, "blurred.tif") == IGNORE
    assert blurred[:, 72:].all() and not blurred[:, :60].any()
    assert "infrared.tif: alpha is 0 in" in printed and "blurred.tif: " in printed and "within 24 of nodata" in printed


def test_ground_of_missing_parts_is_nodata_and_counted(settled: tuple[Path, dict[str, Any], str]) -> None:
    folder, done, printed = settled
    gone = ids_of(folder, "mosaic.tif") == IGNORE
    assert gone[:, W : 2 * W].all() and not gone[:, :W].any() and not gone[:, 2 * W :].any()
    manifest = json.loads((folder / "maps" / "mosaic.manifest.json").read_text())
    assert done["unreadable"] == len(manifest["unreadable"]) > 0
    assert all("t1.tif" in window["reason"] for window in manifest["unreadable"])
    assert "window(s) could not be read and are nodata" in printed


def test_a_map_never_replaces_an_input(model: str, tmp_path: Path) -> None:
    """Nor does what stands beside it: polygons go where an area of interest or a coarse map may lie."""
    image, coarse = write(tmp_path / "in" / "a.tif", painted()), write(tmp_path / "out" / "a.tif", painted()[:1] % 3)
    words = ("--model", model, "--input", image, "--output", tmp_path / "out")
    with pytest.raises(UserError, match=r"would overwrite the input .*a\.tif"):
        job(*words, "--coarse", coarse)
    (tmp_path / "out" / "a.tif").unlink()
    area = tmp_path / "out" / "a.gpkg"
    area.write_text("")
    with pytest.raises(UserError, match=r"would overwrite the input .*a\.gpkg"):
        job(*words, "--aoi", area)


def test_data_of_another_scale_is_measured_by_key_alone(ray_session: None, model: str, tmp_path: Path) -> None:
    """Training keeps the values it saw; evaluation and the gate compare with them before they map anything."""
    configs = {}
    for name, factor in (("eight", 1), ("twelve", 16)):
        folder = tmp_path / name
        for i in range(3):
            pixels = painted(i).astype(np.uint8 if factor == 1 else np.uint16) * factor
            write(folder / f"images/t{i}.tif", pixels, i, photometric="RGB")
            write(folder / f"labels/t{i}.tif", (painted(i)[:1] > 120).astype(np.uint8), i)
        configs[name] = DataConfig(
            name=name,
            source=FolderSource(images=[str(folder / "images")], labels=[str(folder / "labels")]),
            classes=[ClassSpec(name=f"class {k}", colour=f"#00000{k}") for k in range(2)],
            split=SplitConfig(by="fraction", select=0.3, test=0.3),
        )
    data = {name: prepare_data(config, tmp_path / "ready") for name, config in configs.items()}
    values = data["eight"].values
    assert values is not None and values.dtype == "uint8" and values.colours == ("red", "green", "blue")
    assert all(band[0] < band[4] < band[8] for band in values.quantiles)
    spec = load_spec(model).model_copy(update={"values": values})
    plain, deep = data["eight"].split("test"), data["twelve"].split("test")
    assert [region.image for region in fit_values(plain, spec, "refuse")] == [region.image for region in plain]
    with pytest.raises(UserError, match=r"uint16.*data\.value_range"):
        fit_values(deep, spec, "refuse")
    (matched,) = fit_values(deep, spec, "match")
    mapped, original = (one.image.read(Window(0, 0, H, W))[0] for one in (matched, plain[0]))
    assert mapped.dtype == np.float32
    assert np.abs(mapped - original).mean() < 6
